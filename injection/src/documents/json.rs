//! JSON: objects one after the other.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize as _,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, ser::PrettyFormatter};

use super::{Document, Format, Piece, Unreadable, lines, without_position};

/// The objects in `text`, which begins on `line`; nothing if it is no JSON, but perhaps YAML in
/// flow style.
pub(super) fn read(text: &str, line: usize) -> Result<Option<Vec<Piece<'_>>>, Unreadable> {
    let mut pieces = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let start = end + rest.len() - rest.trim_start().len();
        if start > end {
            pieces.push(Piece::Verbatim(&text[end..start]));
        }
        let line = line + lines(&text[..start]);
        match stream.next() {
            None => return Ok(Some(pieces)),
            Some(Ok(Strict(value))) => {
                end = stream.byte_offset();
                pieces.push(Piece::Document(Document {
                    text: &text[start..end],
                    line,
                    value,
                    format: Format::Json,
                    on_separator: false,
                }));
            }
            Some(Err(error)) if error.is_data() => {
                return Err(Unreadable {
                    line: line - lines(&text[..start]) + error.line() - 1,
                    column: error.column().max(1),
                    problem: without_position(&error.to_string()),
                });
            }
            Some(Err(_)) => return Ok(None),
        }
    }
}

/// `value` in the style of `text`: on one line, or with its indentation.
pub(super) fn render(text: &str, value: &Value) -> String {
    let Some((_, rest)) = text.split_once('\n') else {
        return value.to_string();
    };
    let width = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let mut output = Vec::new();
    let formatter = PrettyFormatter::with_indent(&rest.as_bytes()[..width]);
    let mut serializer = serde_json::Serializer::with_formatter(&mut output, formatter);
    match value
        .serialize(&mut serializer)
        .map(|()| String::from_utf8(output))
    {
        Ok(Ok(output)) => output,
        // Neither a value nor a writer to memory can fail.
        _ => value.to_string(),
    }
}

/// A value without duplicate keys, which `Value` itself would accept.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

#[derive(Clone, Copy)]
struct StrictVisitor;

impl<'de> DeserializeSeed<'de> for StrictVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
