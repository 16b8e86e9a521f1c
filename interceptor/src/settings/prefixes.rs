//! CIDRs and lists of them.

use std::{net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{numbers::parse_decimal, split};

/// Which outbound destinations are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixSelection {
    /// `'*'`, of both families.
    All,
    /// A list; `''` is the empty list.
    Listed(Vec<IpNet>),
}

/// Parses `-i`.
pub(super) fn parse_selection(text: &str) -> Result<PrefixSelection, String> {
    match text {
        "*" => Ok(PrefixSelection::All),
        list if split(list).any(|item| item == "*") => {
            Err("mixes '*' with CIDRs: expected either '*' or a list".to_owned())
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

/// Parses what Go's `netip.ParsePrefix` accepts: an address with its number of bits. Refuses
/// `010.0.0.0/8`, which others parse as octal, `/08`, and blanks. Bits after the prefix are kept and have
/// no meaning.
pub(crate) fn parse_prefix(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    IpNet::new(IpAddr::from_str(address).ok()?, parse_decimal(bits)?).ok()
}

fn parse_items(text: &str) -> Result<Vec<IpNet>, String> {
    split(text)
        .map(|item| {
            parse_prefix(item).ok_or_else(|| {
                format!(
                    "{item:?} is not a CIDR: expected an address and its prefix length, such as \
                     10.0.0.0/16 or fd00::/8, separated by commas without spaces, and numbers \
                     without leading zeros"
                )
            })
        })
        .collect()
}

/// Parses the prefix of localhost.
pub(super) fn parse_loopback(text: &str) -> Result<Ipv4Net, String> {
    let net = match parse_prefix(text) {
        Some(IpNet::V4(net)) => Some(net),
        Some(IpNet::V6(_)) | None => None,
    };
    net.filter(|net| net.addr().is_loopback() && net.prefix_len() >= 8)
        .ok_or_else(|| {
            "is not a subnet of 127.0.0.0/8: expected an address that starts with 127 and a prefix \
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
        assert_eq!(parse_items("10.96.0.1/24,fd00::/8,").unwrap().len(), 2);
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fe80::1%eth0/64",
            "x/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "010.0.0.0/8",
            "fd00::/00",
            "10.0.0.0/8/8",
            "10.0.0.0/",
            "10.96.0.1/24, fd00::/8",
            "10.0.0.0/8 ",
            " ",
            "1::2%lo/8",
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
        for bad in [
            "",
            "127.0.0.1",
            "127.0.0.0/7",
            "128.0.0.1/32",
            "::1/128",
            "127.0.0.1/08",
            "127.00.0.1/8",
        ] {
            assert!(parse_loopback(bad).is_err(), "{bad}");
        }
    }

    /// A number as Go reads it there: up to `longest` digits, no leading zero, at most `most`.
    fn is_number(text: &str, longest: usize, most: u32) -> bool {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = text.len() == 1 || !text.starts_with('0');
        is_digits && is_plain && text.len() <= longest && text.parse().is_ok_and(|n: u32| n <= most)
    }

    /// Mostly numbers, and what is nearly one.
    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => (0..300_u32).prop_map(|number| number.to_string()),
            1 => "0{0,2}[0-9]{0,3}",
            1 => "[-+ ]?[0-9]{0,2} ?",
        ]
    }

    proptest! {
        /// By the parts that it is made of, as netip.ParsePrefix judges them.
        #[test]
        fn an_ipv4_prefix_is_what_go_reads(
            octets in prop::collection::vec(number(), 3..6),
            bits in prop_oneof![(0..40_u8).prop_map(|bits| bits.to_string()), number()],
        ) {
            let is_address = octets.len() == 4 && octets.iter().all(|octet| is_number(octet, 3, 255));
            let is_prefix = is_address && is_number(&bits, 2, 32);
            let text = format!("{}/{bits}", octets.join("."));
            prop_assert_eq!(parse_prefix(&text).is_some(), is_prefix, "{}", text);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _selection = parse_selection(&text);
            let _list = parse_list(&text);
            let _loopback = parse_loopback(&text);
        }
    }
}
