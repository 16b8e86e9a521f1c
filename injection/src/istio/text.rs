//! Text as Go's packages `fmt`, `strconv` and `encoding/json` write and read it.

use std::{fmt::Write as _, time::Duration};

use gotmpl::Value;

/// What `fmt.Sprint` makes of `value`.
pub(super) fn sprint(value: &Value) -> String {
    match value {
        Value::Float(float) => float_text(*float),
        Value::Map(map) => map.get("String").map_or_else(|| value.to_string(), sprint),
        Value::List(list) => {
            let entries: Vec<_> = list.iter().map(sprint).collect();
            format!("[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// A number as `%v` prints it: with an exponent from seven digits on, or below 0.0001.
fn float_text(float: f64) -> String {
    let exponent = if float == 0.0 {
        0.0
    } else {
        float.abs().log10().floor()
    };
    if !float.is_finite() || (-4.0..6.0).contains(&exponent) {
        return float.to_string();
    }
    let text = format!("{float:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A string in quotes, as `%q` writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        push_quoted(&mut quoted, character);
    }
    quoted.push('"');
    quoted
}

fn push_quoted(text: &mut String, character: char) {
    let _ = match character {
        '"' => write!(text, "\\\""),
        '\\' => write!(text, "\\\\"),
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        '\u{7}' => write!(text, "\\a"),
        '\u{8}' => write!(text, "\\b"),
        '\u{b}' => write!(text, "\\v"),
        '\u{c}' => write!(text, "\\f"),
        control if control.is_ascii_control() => write!(text, "\\x{:02x}", u32::from(control)),
        control if control.is_control() => write!(text, "\\u{:04x}", u32::from(control)),
        other => write!(text, "{other}"),
    };
}

/// JSON with `<`, `>` and `&` escaped, as Go's encoder does by default.
pub(super) fn json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// A duration in protobuf's JSON: seconds with `s`.
pub(super) fn protobuf_duration(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanoseconds))
}

/// A duration as Go's `String` writes it: `1h2m3.5s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && duration.subsec_nanos() > 0 {
        return small_duration(duration);
    }
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let _ = write!(text, "{}", seconds % 60);
    if duration.subsec_nanos() > 0 {
        let fraction = format!("{:09}", duration.subsec_nanos());
        let _ = write!(text, ".{}", fraction.trim_end_matches('0'));
    }
    text.push('s');
    text
}

fn small_duration(duration: Duration) -> String {
    let nanoseconds = f64::from(duration.subsec_nanos());
    if nanoseconds < 1e3 {
        format!("{nanoseconds}ns")
    } else if nanoseconds < 1e6 {
        format!("{}µs", nanoseconds / 1e3)
    } else {
        format!("{}ms", nanoseconds / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_in_go() {
        for (float, text) in [
            (0.0, "0"),
            (15020.0, "15020"),
            (1.5, "1.5"),
            (123_456.0, "123456"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e-7, "1.5e-07"),
        ] {
            assert_eq!(sprint(&Value::Float(float)), text);
        }
    }

    #[test]
    fn strings_are_quoted_as_in_go() {
        assert_eq!(quoted("a\"b\\\n\u{1}é\u{85}"), r#""a\"b\\\n\x01é\u0085""#);
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, expected) in [
            ("45s", Some("45s")),
            ("0s", Some("0s")),
            ("3723.5s", Some("1h2m3.5s")),
            ("3600s", Some("1h0m0s")),
            ("0.25s", Some("250ms")),
            ("0.000002s", Some("2µs")),
            ("1m", None),
            ("s", None),
            ("-1s", None),
        ] {
            let read = protobuf_duration(text).map(duration);
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
