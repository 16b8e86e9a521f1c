//! Ports, port ranges and lists of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{numbers::parse_decimal, words};

const ALLOWED: &str = "expected port numbers from 0 to 65535, without leading zeros, or ranges such \
                       as 8000:8010, separated by commas";

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The ports.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(formatter)
        } else {
            write!(formatter, "{}:{}", self.first, self.last)
        }
    }
}

/// Which inbound ports are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortSelection {
    /// `''`
    None,
    /// `'*'`
    All,
    /// A list. If it is empty (`','`), iptables has the chain without rules.
    Listed(Vec<PortRange>),
}

/// Parses the port of a listener.
pub(super) fn parse_listener(text: &str) -> Result<u16, String> {
    parse_decimal(text)
        .filter(|port| *port > 0)
        .ok_or_else(|| "is not a port number from 1 to 65535".to_owned())
}

/// Parses `-b`.
pub(super) fn parse_selection(text: &str) -> Result<PortSelection, String> {
    match text {
        "" => Ok(PortSelection::None),
        "*" => Ok(PortSelection::All),
        list if words(list).any(|item| item == "*") => {
            Err("mixes '*' with ports: expected either '*' or a list".to_owned())
        }
        list => parse_list(list).map(PortSelection::Listed),
    }
}

/// Whether the text is one port.
pub(crate) fn is_port(text: &str) -> bool {
    parse_decimal::<u16>(text).is_some()
}

/// Parses a list of values of iptables' `--dport`.
pub(super) fn parse_list(text: &str) -> Result<Vec<PortRange>, String> {
    words(text).map(parse_range).collect()
}

/// `80`, `8000:8010`, `:1023` or `1024:`.
fn parse_range(item: &str) -> Result<PortRange, String> {
    let port = |text: &str, default| match text {
        "" => Some(default),
        number => parse_decimal::<u16>(number),
    };
    let range = match item.split_once(':') {
        Some((first, last)) => port(first, 0).zip(port(last, u16::MAX)),
        None => parse_decimal(item).map(|port| (port, port)),
    };
    match range {
        Some((first, last)) if first <= last => Ok(PortRange { first, last }),
        Some(_) => Err(format!("{item:?} has its end before its start: {ALLOWED}")),
        None => Err(format!("{item:?} is not a port: {ALLOWED}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_contain_what_iptables_accepts() {
        let ranges = parse_list("80, 8000:8010,,:3,65535:").unwrap();
        let text: Vec<_> = ranges.iter().map(PortRange::to_string).collect();
        assert_eq!(text, ["80", "8000:8010", "0:3", "65535"]);
        for bad in [
            "x", "80-90", "65536", "-1", "9:8", "1:2:3", "*", " ", "\t", "80, ", "08080", "010",
            "+80", "0x50", "1:08", "1: 2", "80\n", "\r80", "80 90", "\u{a0}80",
        ] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selection_is_nothing_everything_or_a_list() {
        assert_eq!(parse_selection(""), Ok(PortSelection::None));
        assert_eq!(parse_selection("*"), Ok(PortSelection::All));
        assert_eq!(parse_selection(","), Ok(PortSelection::Listed(Vec::new())));
        assert!(parse_selection("*,80").is_err());
    }

    #[test]
    fn a_listener_has_a_port_from_1_to_65535() {
        assert_eq!(parse_listener("15001"), Ok(15001));
        for bad in ["", "0", "65536", "http", "015001", "+1", " 1"] {
            assert!(parse_listener(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*") {
            let _selection = parse_selection(&text);
        }

        #[test]
        fn a_printed_range_can_be_parsed(first: u16, length in 0_u16..1000) {
            let range = PortRange { first, last: first.saturating_add(length) };
            prop_assert_eq!(parse_list(&range.to_string()), Ok(vec![range]));
        }
    }
}
