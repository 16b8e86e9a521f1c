//! Access to the parts of a raw pod.

use serde_json::{Map, Value, json};

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
