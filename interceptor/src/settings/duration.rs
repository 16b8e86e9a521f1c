//! Go's durations: `1m30s`, `1.5h`, `300ms`.

use std::time::Duration;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses what `time.ParseDuration` accepts. A negative duration becomes zero: as a timeout, both expire
/// at once.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let nanoseconds = match unsigned {
        "0" => Some(0),
        _ => nanoseconds(unsigned),
    };
    let nanoseconds = nanoseconds
        // Go counts them in an i64.
        .and_then(|count| i64::try_from(count).ok())
        .and_then(|count| u64::try_from(count).ok())
        .ok_or(
            "is not a duration: expected numbers with units (h, m, s, ms, us, ns), such as 1m30s",
        )?;
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn nanoseconds(mut text: &str) -> Option<u128> {
    let mut sum: u128 = 0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let (number, rest) = split_where(text, |character| {
            character != '.' && !character.is_ascii_digit()
        });
        let (unit, rest) = split_where(rest, |character| {
            character == '.' || character.is_ascii_digit()
        });
        sum = sum.checked_add(term(number, unit)?)?;
        text = rest;
    }
    Some(sum)
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// One number with its unit.
fn term(number: &str, unit: &str) -> Option<u128> {
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_empty = whole.is_empty() && fraction.is_empty();
    if is_empty || fraction.contains('.') {
        return None;
    }
    let whole: u64 = or_zero(whole)?;
    // More digits are below a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = u128::from(or_zero(fraction)?) * unit / scale;
    Some(u128::from(whole) * unit + fraction)
}

fn or_zero(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        Some(0)
    } else {
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_go_are_accepted() {
        let cases = [
            ("5s", 5_000_000_000),
            ("0", 0),
            ("+0", 0),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("300ms", 300_000_000),
            ("1us2\u{b5}s3\u{3bc}s4ns", 6_004),
            ("1s1s", 2_000_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("-1h", 0),
            ("2562047h47m16.854775807s", 9_223_372_036_854_775_807),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn texts_that_go_refuses_are_refused() {
        let bad = [
            "",
            "5",
            "s",
            ".s",
            "1.2.3s",
            "5 s",
            "5S",
            "1d",
            "-",
            "+-5s",
            "5s ",
            "1,5s",
            "2562047h47m16.854775808s",
            "99999999999999999999s",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-+]?([0-9.]{0,25}(ns|us|ms|s|m|h|.)){0,4}") {
            let _duration = parse(&text);
        }

        #[test]
        fn every_count_of_nanoseconds_can_be_written(count in 0..=i64::MAX.unsigned_abs()) {
            prop_assert_eq!(parse(&format!("{count}ns")), Ok(Duration::from_nanos(count)));
        }
    }
}
