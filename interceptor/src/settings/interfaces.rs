//! Names of network interfaces.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::words;

/// The kernel's limit.
const MAX_NAME: usize = 15;

/// The name of an interface, or, with a `+` at its end, a prefix of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfacePattern(String);

impl InterfacePattern {
    /// Whether the pattern matches `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('+') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl From<InterfacePattern> for String {
    fn from(pattern: InterfacePattern) -> Self {
        pattern.0
    }
}

impl TryFrom<String> for InterfacePattern {
    type Error = String;

    /// Characters that could start another option or end a rule's line are refused: rules contain what
    /// pods request.
    fn try_from(name: String) -> Result<Self, Self::Error> {
        let allowed =
            |character: char| character.is_ascii_graphic() && !"/:!\"'\\".contains(character);
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with('-')
            && ![".", ".."].contains(&name.as_str())
            && name.chars().all(allowed);
        if is_name {
            return Ok(Self(name));
        }
        Err(format!(
            "{name:?} is not the name of an interface: expected names such as eth0, of up to \
             {MAX_NAME} characters, separated by commas; eth+ matches all names that start with eth"
        ))
    }
}

pub(super) fn parse_list(text: &str) -> Result<Vec<InterfacePattern>, String> {
    words(text).map(|name| name.to_owned().try_into()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> InterfacePattern {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_plus_at_the_end_matches_any_suffix() {
        assert!(pattern("eth0").matches("eth0"));
        assert!(!pattern("eth0").matches("eth01"));
        assert!(pattern("eth+").matches("eth"));
        assert!(pattern("eth+").matches("eth12"));
        assert!(!pattern("eth+").matches("veth0"));
        assert!(pattern("+").matches("anything"));
        assert!(pattern("a+b").matches("a+b"));
    }

    #[test]
    fn lists_are_names() {
        let names = parse_list("net1, eth+,,docker0").unwrap();
        assert_eq!(names, ["net1", "eth+", "docker0"].map(pattern));
        let too_long = "sixteen-letters-";
        for bad in [
            " ", "\t,eth0", "a b", "a/b", "eth0:1", "-j", "!", "x\n-A", ".", "..", "ä", too_long,
        ] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_pattern_can_be_printed_and_parsed_again(text in ".*") {
            if let Ok(patterns) = parse_list(&text) {
                for pattern in patterns {
                    prop_assert_eq!(parse_list(&pattern.to_string()), Ok(vec![pattern]));
                }
            }
        }
    }
}
