//! Access to pods as raw JSON.

use std::collections::BTreeMap;

use serde_json::Value;

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
