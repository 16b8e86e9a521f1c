//! Numbers. A leading zero means octal to iptables and nothing to Go, so it is refused.

use std::str::FromStr;

/// A decimal number without a sign or a leading zero.
pub(super) fn parse_decimal<T: FromStr>(text: &str) -> Option<T> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let leads_with_zero = text.starts_with('0') && text != "0";
    (is_decimal && !leads_with_zero)
        .then(|| text.parse().ok())
        .flatten()
}

/// A mark or a routing table: decimal, or hexadecimal after `0x`.
pub(super) fn parse_u32(text: &str) -> Result<u32, String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = match text.strip_prefix("0x") {
        Some(hex) if digits(hex) => u32::from_str_radix(hex, 16).ok(),
        None => parse_decimal(text),
        Some(_) => None,
    };
    number.filter(|number| *number > 0).ok_or_else(|| {
        "is not a number from 1 to 4294967295, in decimal, or in hexadecimal after 0x".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_unambiguous_numbers_are_accepted() {
        assert_eq!(parse_u32("1337"), Ok(1337));
        assert_eq!(parse_u32("0x539"), Ok(1337));
        assert_eq!(parse_u32("0xffffffff"), Ok(u32::MAX));
        for bad in [
            "",
            "0",
            "0x0",
            "0x",
            "010",
            "+5",
            "-1",
            "0x+5",
            "1337/0xff",
            "4294967296",
        ] {
            assert!(parse_u32(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_decimal_number_has_only_digits_and_no_leading_zero() {
        assert_eq!(parse_decimal("0"), Some(0_u16));
        assert_eq!(parse_decimal("8080"), Some(8080_u16));
        for bad in [
            "", "00", "08080", "+80", "-0", "0x50", " 80", "80 ", "65536",
        ] {
            assert_eq!(parse_decimal::<u16>(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_number_can_be_decimal_or_hexadecimal(number in 1..=u32::MAX) {
            prop_assert_eq!(parse_u32(&number.to_string()), Ok(number));
            prop_assert_eq!(parse_u32(&format!("{number:#x}")), Ok(number));
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _number = parse_u32(&text);
        }
    }
}
