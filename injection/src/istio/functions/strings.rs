//! Sprig's functions on strings, and on any value.

use gotmpl::Value;

use super::{Function, MAX_LENGTH, Result, entries, exactly, fail, length, sprint, string, texts};
use crate::istio::text;

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("abbrev", abbrev),
    ("all", all),
    ("any", any),
    ("b64dec", b64dec),
    ("b64enc", b64enc),
    ("base", base),
    ("camelcase", |a| map(a, camel_case)),
    ("cat", cat),
    ("coalesce", coalesce),
    ("default", default),
    ("dir", dir),
    ("empty", empty),
    ("ext", ext),
    ("fail", |a| fail(texts::<1>(a)?.concat())),
    ("hasPrefix", |a| {
        test(a, |part, text| text.starts_with(part))
    }),
    ("hasSuffix", |a| test(a, |part, text| text.ends_with(part))),
    ("kebabcase", |a| map(a, |text| separated(text, '-'))),
    ("kindIs", kind_is),
    ("kindOf", kind_of),
    ("lower", |a| map(a, str::to_lowercase)),
    ("nindent", nindent),
    ("nospace", |a| {
        map(a, |text| text.split_whitespace().collect())
    }),
    ("quote", quote),
    ("repeat", repeat),
    ("replace", replace),
    ("snakecase", |a| map(a, |text| separated(text, '_'))),
    ("squote", squote),
    ("substr", substr),
    ("ternary", ternary),
    ("title", |a| map(a, title)),
    ("toString", |a| map(a, str::to_owned)),
    ("trim", |a| map(a, |text| text.trim().to_owned())),
    ("trimAll", |a| {
        cut(a, |set, text| text.trim_matches(|c| set.contains(c)))
    }),
    ("trimPrefix", |a| {
        cut(a, |part, text| text.strip_prefix(part).unwrap_or(text))
    }),
    ("trimSuffix", |a| {
        cut(a, |part, text| text.strip_suffix(part).unwrap_or(text))
    }),
    ("trimall", |a| {
        cut(a, |set, text| text.trim_matches(|c| set.contains(c)))
    }),
    ("trunc", trunc),
    ("untitle", |a| map(a, untitle)),
    ("upper", |a| map(a, str::to_uppercase)),
];

fn map(arguments: &[Value], function: impl Fn(&str) -> String) -> Result {
    let [text] = texts(arguments)?;
    string(function(&text))
}

fn test(arguments: &[Value], function: impl Fn(&str, &str) -> bool) -> Result {
    let [part, text] = texts(arguments)?;
    Ok(Value::Bool(function(&part, &text)))
}

fn cut(arguments: &[Value], function: impl for<'a> Fn(&str, &'a str) -> &'a str) -> Result {
    let [part, text] = texts(arguments)?;
    string(function(&part, &text))
}

fn default(arguments: &[Value]) -> Result {
    match arguments {
        [default] => Ok(default.clone()),
        [default, value] => Ok(if value.is_truthy() { value } else { default }.clone()),
        _ => fail("default: a default and a value are needed"),
    }
}

fn empty(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    Ok(Value::Bool(!value.is_truthy()))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn coalesce(arguments: &[Value]) -> Result {
    let found = arguments.iter().find(|value| value.is_truthy());
    Ok(found.cloned().unwrap_or(Value::Nil))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn any(arguments: &[Value]) -> Result {
    Ok(Value::Bool(arguments.iter().any(Value::is_truthy)))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn all(arguments: &[Value]) -> Result {
    Ok(Value::Bool(arguments.iter().all(Value::is_truthy)))
}

fn ternary(arguments: &[Value]) -> Result {
    let [yes, no, condition] = exactly(arguments)?;
    Ok(if condition.is_truthy() { yes } else { no }.clone())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Function(_) => "func",
    }
}

fn kind_of(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    string(kind(value))
}

fn kind_is(arguments: &[Value]) -> Result {
    let [expected, value] = exactly(arguments)?;
    Ok(Value::Bool(sprint(expected) == kind(value)))
}

fn joined(arguments: &[Value], quote: impl Fn(&str) -> String) -> Result {
    let present = arguments
        .iter()
        .filter(|value| !matches!(value, Value::Nil));
    let quoted: Vec<_> = present.map(|value| quote(&sprint(value))).collect();
    string(quoted.join(" "))
}

fn quote(arguments: &[Value]) -> Result {
    joined(arguments, text::quoted)
}

fn squote(arguments: &[Value]) -> Result {
    joined(arguments, |text| format!("'{text}'"))
}

fn cat(arguments: &[Value]) -> Result {
    joined(arguments, str::to_owned)
}

fn nindent(arguments: &[Value]) -> Result {
    let [spaces, source] = exactly(arguments)?;
    let source = format!("\n{}", sprint(source));
    super::limits::indented(length(spaces)?, &source)
}

fn trunc(arguments: &[Value]) -> Result {
    let [count, text] = exactly(arguments)?;
    let text = sprint(text);
    let count = super::numbers::integer(count);
    let bytes = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if bytes >= text.len() {
        return string(text);
    }
    if count >= 0 {
        string(&text[..boundary(&text, bytes)])
    } else {
        string(&text[boundary(&text, text.len() - bytes)..])
    }
}

/// The last start of a character up to `index`.
fn boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

fn substr(arguments: &[Value]) -> Result {
    let [start, end, text] = exactly(arguments)?;
    let text = sprint(text);
    let place = |value| usize::try_from(super::numbers::integer(value)).ok();
    let start = boundary(&text, place(start).unwrap_or(0));
    let end = boundary(&text, place(end).unwrap_or(text.len()));
    string(text.get(start..end).unwrap_or_default())
}

fn abbrev(arguments: &[Value]) -> Result {
    let [width, text] = exactly(arguments)?;
    let (width, text) = (length(width)?, sprint(text));
    if width < 4 || text.len() <= width {
        return string(text);
    }
    string(format!("{}...", &text[..boundary(&text, width - 3)]))
}

fn repeat(arguments: &[Value]) -> Result {
    let [count, text] = exactly(arguments)?;
    let (count, text) = (length(count)?, sprint(text));
    if count.saturating_mul(text.len()) > MAX_LENGTH {
        return fail(format!(
            "repeat: the result is longer than {MAX_LENGTH} bytes"
        ));
    }
    string(text.repeat(count))
}

fn replace(arguments: &[Value]) -> Result {
    let [old, new, text] = texts(arguments)?;
    let count = text.matches(old.as_str()).count();
    if count.saturating_mul(new.len()).saturating_add(text.len()) > MAX_LENGTH {
        return fail(format!(
            "replace: the result is longer than {MAX_LENGTH} bytes"
        ));
    }
    string(text.replace(&old, &new))
}

fn title(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace);
    words.map(crate::istio::names::capitalised).collect()
}

fn untitle(text: &str) -> String {
    let mut after_space = true;
    text.chars()
        .map(|character| {
            let first = std::mem::replace(&mut after_space, character.is_whitespace());
            if first {
                character.to_ascii_lowercase()
            } else {
                character
            }
        })
        .collect()
}

fn camel_case(text: &str) -> String {
    let words = text.split(['_', '-', ' ']);
    words.map(crate::istio::names::capitalised).collect()
}

/// Words that start with a capital letter, in small letters, with `separator` between them.
fn separated(text: &str, separator: char) -> String {
    let mut result = String::new();
    let mut previous_small = false;
    for character in text.chars() {
        if character.is_uppercase() && previous_small {
            result.push(separator);
        }
        if matches!(character, '_' | '-' | ' ') {
            result.push(separator);
        } else {
            result.extend(character.to_lowercase());
        }
        previous_small = character.is_lowercase() || character.is_ascii_digit();
    }
    result
}

fn base(arguments: &[Value]) -> Result {
    let [path] = texts(arguments)?;
    let trimmed = path.trim_end_matches('/');
    string(match (path.as_str(), trimmed) {
        ("", _) => ".",
        (_, "") => "/",
        (_, trimmed) => trimmed.rsplit('/').next().unwrap_or(trimmed),
    })
}

fn dir(arguments: &[Value]) -> Result {
    let [path] = texts(arguments)?;
    string(match path.rsplit_once('/') {
        None => ".",
        Some(("", _)) => "/",
        Some((directory, _)) => directory.trim_end_matches('/'),
    })
}

fn ext(arguments: &[Value]) -> Result {
    let [path] = texts(arguments)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    string(name.rfind('.').map_or("", |dot| &name[dot..]))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn b64enc(arguments: &[Value]) -> Result {
    let [text] = texts(arguments)?;
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0u32, |bits, index| {
            bits << 8 | u32::from(chunk.get(index).copied().unwrap_or(0))
        });
        for index in 0..4 {
            let place = (bits >> (18 - 6 * index) & 63) as usize;
            let is_data = index <= chunk.len();
            encoded.push(if is_data {
                char::from(ALPHABET[place])
            } else {
                '='
            });
        }
    }
    string(encoded)
}

fn b64dec(arguments: &[Value]) -> Result {
    let [text] = texts(arguments)?;
    let mut bytes = Vec::new();
    let mut bits = 0u32;
    let mut count = 0;
    for byte in text.trim_end_matches('=').bytes() {
        let Some(place) = ALPHABET.iter().position(|letter| *letter == byte) else {
            return fail("b64dec: the text is not base64");
        };
        bits = bits << 6 | u32::try_from(place).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    string(String::from_utf8_lossy(&bytes))
}

/// The entries of a list as text.
pub(super) fn strings(value: &Value) -> gotmpl::Result<Vec<String>> {
    Ok(entries(value)?.iter().map(sprint).collect())
}
