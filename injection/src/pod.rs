//! Access to pods as raw JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The string entries of an object such as `metadata.labels`; none if it is not an object.
#[must_use]
pub fn strings(object: &Value) -> BTreeMap<&str, &str> {
    let entries = object.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}

/// The entry of the list `list` with this `name`.
#[must_use]
pub fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry["name"] == name)
}

/// The object at `path`, which is created if it is not there.
pub fn object_at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut object = object(value);
    for key in path {
        object = self::object(object.entry(*key).or_insert(Value::Null));
    }
    object
}

/// `value` as an object. What is none is replaced: `labels: null` is an empty map.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was just made an object"),
    }
}

/// Removes the entry at `path`, and the objects and lists on the path that are empty without it.
pub fn remove(value: &mut Value, path: &[&str]) {
    let Some((key, rest)) = path.split_first() else {
        return;
    };
    let Some(child) = value.get_mut(*key) else {
        return;
    };
    remove(child, rest);
    let empty = match child {
        Value::Object(object) => object.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if (rest.is_empty() || empty)
        && let Some(object) = value.as_object_mut()
    {
        object.shift_remove(*key);
    }
}
