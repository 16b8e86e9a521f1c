//! YAML, which is written as Go's `toYaml` does it: keys are sorted, and a line break is last.

use std::fmt::Write as _;

use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

/// YAML or JSON as a value; `null` if it is empty. The problem is one line.
pub(super) fn read(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| first_line(&error))
}

/// As [`read`], but of equal keys the last one wins: so Go reads what a template writes.
pub(super) fn read_lenient(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| first_line(&error))
}

/// The line and the problem, without an excerpt of the text.
pub(super) fn first_line(error: &serde_saphyr::Error) -> String {
    let error = error.to_string();
    let first = error.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// `value` as YAML.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => write_block(&mut text, value, 0),
        Value::Array(list) if !list.is_empty() => write_block(&mut text, value, 0),
        scalar => write_inline(&mut text, scalar),
    }
    text
}

fn write_block(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 || !text.ends_with("- ") {
                    pad(text, indent);
                }
                let _ = write!(text, "{}:", scalar(key));
                write_entry(text, value, indent);
            }
        }
        Value::Array(list) => {
            for (index, entry) in list.iter().enumerate() {
                if index > 0 || !text.ends_with("- ") {
                    pad(text, indent);
                }
                text.push_str("- ");
                if is_block(entry) {
                    write_block(text, entry, indent + 2);
                } else {
                    write_inline(text, entry);
                }
            }
        }
        other => write_inline(text, other),
    }
}

/// The value of a key. Lists are not indented below their key, as Go does it.
fn write_entry(text: &mut String, value: &Value, indent: usize) {
    if !is_block(value) {
        text.push(' ');
        write_inline(text, value);
        return;
    }
    text.push('\n');
    let indent = if value.is_array() { indent } else { indent + 2 };
    write_block(text, value, indent);
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(object) => !object.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn write_inline(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => text.push_str(&scalar(string)),
        other => {
            let _ = write!(text, "{other}");
        }
    }
    text.push('\n');
}

/// A string as a scalar: plain if it cannot be mistaken for anything else, else in quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

fn is_plain(text: &str) -> bool {
    let allowed =
        |character: char| character.is_ascii_alphanumeric() || "_-./ ".contains(character);
    let starts_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    starts_plain
        && text.chars().all(allowed)
        && !text.ends_with(' ')
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_sorted_and_read_back() {
        let value = json!({
            "limits": {"memory": "1Gi", "cpu": "2", "none": null},
            "list": [{"b": 1, "a": [true, "yes"]}, "x", [["y"], []]],
            "empty": {},
            "text": "a: b\nc",
        });
        let text = write(&value);
        assert!(
            text.starts_with("empty: {}\nlimits:\n  cpu: \"2\"\n  memory: \"1Gi\"\n"),
            "{text}"
        );
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn scalars_end_with_a_line_break() {
        for (value, text) in [
            (json!("abc"), "abc\n"),
            (json!("1"), "\"1\"\n"),
            (json!("off"), "\"off\"\n"),
            (json!(null), "null\n"),
            (json!({}), "{}\n"),
        ] {
            assert_eq!(write(&value), text);
        }
    }
}
