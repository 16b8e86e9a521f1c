//! Access to the parts of a raw pod.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::refusal::{Problem, Refusal};

/// The string entries of an object such as `metadata.labels`; none if it is not an object.
#[must_use]
pub(crate) fn strings(object: &Value) -> BTreeMap<&str, &str> {
    let entries = object.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}

/// The entry of the list `list` with this `name`.
#[must_use]
pub(crate) fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry["name"] == name)
}

/// The value of an annotation.
#[must_use]
pub(crate) fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][name].as_str()
}

/// The annotations, which are added if the pod has none.
///
/// # Panics
///
/// If the pod is not an object: the caller has checked that.
pub(crate) fn annotations_mut(pod: &mut Value) -> &mut Map<String, Value> {
    object(&mut pod["metadata"]["annotations"])
}

/// `containers` or `initContainers`, which are added if the pod has none.
///
/// # Panics
///
/// If the pod is not an object: the caller has checked that.
pub(crate) fn containers_mut<'a>(pod: &'a mut Value, list: &str) -> &'a mut Vec<Value> {
    let value = &mut pod["spec"][list];
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("an array, as of above")
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("an object, as of above")
}

/// Removes the entry at `path`, and the objects and lists on the path that are empty without it.
pub(crate) fn remove(value: &mut Value, path: &[&str]) {
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

/// The problem of a pod whose parts do not have the types of the API.
pub(crate) fn check_shape(pod: &Value) -> Result<(), Refusal> {
    let problems = SHAPE.iter().filter_map(|(pointer, required, kind)| {
        let value = pod.pointer(pointer).unwrap_or(&Value::Null);
        let is_kind = match *kind {
            "a list" => value.is_array(),
            _ => value.is_object(),
        };
        let fits = is_kind || (value.is_null() && !required);
        let name = pointer.trim_start_matches('/').replace('/', ".");
        let name = if name.is_empty() { "the pod" } else { &name };
        (!fits).then(|| Problem::Other(format!("{name} is not {kind}")))
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Refusal(problems))
}

/// Parts of a pod: where, whether they are required, and what they are.
const SHAPE: [(&str, bool, &str); 7] = [
    ("", true, "an object"),
    ("/metadata", false, "an object"),
    ("/metadata/labels", false, "an object"),
    ("/metadata/annotations", false, "an object"),
    ("/spec", true, "an object"),
    ("/spec/containers", false, "a list"),
    ("/spec/initContainers", false, "a list"),
];
