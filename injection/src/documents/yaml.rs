//! YAML: where documents begin, and their values.

use std::ops::Range;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::{SingleQuoted, options, ser_options};

use super::{Unreadable, without_position};

/// A part of a stream.
pub(super) enum Part<'a> {
    /// A line `---`, or the mark itself if the document begins on its line.
    Separator(&'a str),
    /// The text between two separators.
    Document(&'a str),
}

/// Cuts `text` at lines that begin with `---`, as kubectl does. A block scalar cannot contain such
/// a line.
pub(super) fn split(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if let Some(length) = separator(line) {
            push(&mut parts, text, start..end);
            parts.push(Part::Separator(&line[..length]));
            start = end + length;
        }
        end += line.len();
    }
    push(&mut parts, text, start..end);
    parts
}

fn push<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, range: Range<usize>) {
    if !range.is_empty() {
        parts.push(Part::Document(&text[range]));
    }
}

/// The length of the separator at the start of `line`.
fn separator(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---")?;
    let content = rest.trim_start();
    if content.is_empty() || (content.starts_with('#') && content.len() < rest.len()) {
        return Some(line.len());
    }
    (content.len() < rest.len()).then_some("---".len())
}

/// Whether there is no node: only comments, spaces, directives and end marks.
pub(super) fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim_start_matches('\u{feff}');
        line.trim().is_empty()
            || line.trim_start().starts_with('#')
            || line.starts_with('%')
            || line.trim_end() == "..."
    })
}

/// The value of one document, with the types that Kubernetes gives to scalars: `0644` is octal,
/// `yes` is a boolean.
pub(super) fn value(text: &str) -> Result<Value, Unreadable> {
    let options = options! {
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        let number = |number: Option<u64>| {
            let number = number.and_then(|number| usize::try_from(number).ok());
            number.unwrap_or(1).max(1)
        };
        Unreadable {
            line: number(location.map(|location| location.line())),
            column: number(location.map(|location| location.column())),
            problem: problem(&error),
        }
    })
}

/// The problem on one line, without the position.
fn problem(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    without_position(without_start(line.trim_start_matches("error: ")))
}

/// Without `line 1 column 5: `, with which some errors begin.
fn without_start(problem: &str) -> &str {
    match problem.split_once(": ") {
        Some((position, problem)) if position.starts_with("line ") => problem,
        _ => problem,
    }
}

/// A document of its own. Quoting is that of YAML 1.1, which Kubernetes reads.
pub(super) fn render(value: &Value) -> String {
    let options = ser_options! {
        compact_list_indent: true,
        indent_step: 2,
        // Long strings are not folded.
        folded_wrap_chars: usize::MAX,
    };
    // A JSON value has no keys or numbers that YAML lacks. JSON is YAML.
    serde_saphyr::to_string_with_options(&Readable(value), options)
        .unwrap_or_else(|_| format!("{value:#}\n"))
}

/// A value whose texts in JSON are in single quotes, where no character needs an escape.
struct Readable<'a>(&'a Value);

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if is_json(text) => SingleQuoted(text).serialize(serializer),
            Value::Array(list) => serializer.collect_seq(list.iter().map(Readable)),
            Value::Object(object) => {
                serializer.collect_map(object.iter().map(|(key, value)| (key, Readable(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

fn is_json(text: &str) -> bool {
    let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'\'';
    text.starts_with(['{', '[']) && text.contains('"') && text.bytes().all(is_plain)
}
