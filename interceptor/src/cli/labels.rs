//! Labels on the command line.

use std::{collections::BTreeMap, str::FromStr};

use crate::arguments::is_dns_label;

/// `KEY=VALUE,...`
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    pub(super) fn get(&self) -> BTreeMap<&str, &str> {
        let labels = self.0.iter();
        labels.map(|(key, value)| (&**key, &**value)).collect()
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').filter(|item| !item.is_empty());
        let labels = items.map(|item| match item.split_once('=') {
            Some((key, value)) if is_key(key) && (value.is_empty() || is_value(value)) => {
                Ok((key.to_owned(), value.to_owned()))
            }
            _ => Err(format!(
                "{item:?} is not a label: expected KEY=VALUE, such as istio-injection=enabled"
            )),
        });
        labels.collect::<Result<_, _>>().map(Self)
    }
}

/// `NAME`, or `DOMAIN/NAME`.
fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => domain.split('.').all(is_dns_label) && is_value(name),
        None => is_value(text),
    }
}

/// The syntax of a label's value that is not empty, and of the name in its key.
fn is_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends
            .iter()
            .all(|byte| byte.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().copied().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_kubernetes() {
        for text in ["", "a=", "a=b,istio.io/rev=1-29.x_Y", "x.y/A.b_c=1"] {
            text.parse::<Labels>().unwrap();
        }
        for (text, item) in [
            ("a=b,x", "x"),
            ("=b", "=b"),
            ("a b=c", "a b=c"),
            ("a=b c", "a=b c"),
            ("A/b=c", "A/b=c"),
            ("a=-b", "a=-b"),
        ] {
            let error = text.parse::<Labels>().unwrap_err();
            assert!(error.starts_with(&format!("{item:?} is not")), "{error}");
        }
    }
}
