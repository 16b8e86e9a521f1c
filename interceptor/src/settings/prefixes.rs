//! CIDRs and lists of them.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::split;

/// Which outbound destinations are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixSelection {
    /// `'*'`, of both families.
    All,
    /// A list; `''` is the empty one.
    Listed(Vec<IpNet>),
}

/// Parses `-i`.
pub(super) fn parse_selection(text: &str) -> Result<PrefixSelection, String> {
    match text {
        "*" => Ok(PrefixSelection::All),
        list if split(list).any(|item| item == "*") => {
            Err("mixes '*' with CIDRs: give either '*' or a list".to_owned())
        }
        list => parse_items(list).map(PrefixSelection::Listed),
    }
}

/// Parses `-x`, which has no `'*'`.
pub(super) fn parse_list(text: &str) -> Result<Vec<IpNet>, String> {
    if text == "*" {
        return Err("is not allowed here: to capture nothing, leave -i empty".to_owned());
    }
    parse_items(text)
}

/// Go's `netip.ParsePrefix`: an address with its number of bits. Bits behind the prefix are kept as
/// given and have no meaning.
fn parse_items(text: &str) -> Result<Vec<IpNet>, String> {
    split(text)
        .map(|item| {
            item.parse().map_err(|_| {
                format!(
                    "{item:?} is not a CIDR: give an address and its prefix length, such as \
                     10.0.0.0/16 or fd00::/8, separated by commas"
                )
            })
        })
        .collect()
}

/// Parses what the rules call localhost.
pub(super) fn parse_loopback(text: &str) -> Result<Ipv4Net, String> {
    let net = text.parse().ok();
    net.filter(|net: &Ipv4Net| net.addr().is_loopback() && net.prefix_len() >= 8)
        .ok_or_else(|| {
            "is not a part of 127.0.0.0/8: give an address that begins with 127 and a prefix \
             length from 8 to 32, such as 127.0.0.1/32"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_need_a_prefix_length() {
        assert_eq!(parse_items("10.96.0.1/24, fd00::/8,").unwrap().len(), 2);
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fe80::1%eth0/64",
            "x/8",
            "10.0.0.0/-1",
            "*",
        ] {
            assert!(parse_items(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_wildcard_stands_alone_and_only_for_inclusion() {
        assert_eq!(parse_selection("*"), Ok(PrefixSelection::All));
        assert_eq!(parse_selection(""), Ok(PrefixSelection::Listed(Vec::new())));
        assert!(parse_selection("*,10.0.0.0/8").is_err());
        assert!(parse_list("*").is_err());
    }

    #[test]
    fn localhost_is_within_127() {
        assert!(parse_loopback("127.0.0.1/8").is_ok());
        for bad in ["", "127.0.0.1", "127.0.0.0/7", "128.0.0.1/32", "::1/128"] {
            assert!(parse_loopback(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".*") {
            let _selection = parse_selection(&text);
            let _list = parse_list(&text);
            let _loopback = parse_loopback(&text);
        }
    }
}
