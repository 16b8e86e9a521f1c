//! Containers of raw pods.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The name of the proxy's container. The agent, istioctl and Kiali look for it.
pub(crate) const PROXY: &str = "istio-proxy";
/// The list of containers in a pod's `spec`.
pub(crate) const CONTAINERS: &str = "containers";
/// The list of init containers in a pod's `spec`.
pub(crate) const INIT_CONTAINERS: &str = "initContainers";

/// The entries of `list` in the pod's `spec`; none if it is no list.
pub(crate) fn of<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod["spec"][list].as_array().map_or(&[], Vec::as_slice)
}

/// The entries of `list` in the pod's `spec`, to change them.
pub(crate) fn of_mut<'a>(pod: &'a mut Value, list: &str) -> &'a mut [Value] {
    let found = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
    found
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// The entry of `list` in the pod's `spec` with this name.
pub(crate) fn find<'a>(pod: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    of(pod, list).iter().find(|entry| entry["name"] == name)
}

/// A container of either list, as Istio looks for it: first among the containers.
pub(crate) fn find_any<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    find(pod, CONTAINERS, name).or_else(|| find(pod, INIT_CONTAINERS, name))
}

/// A container of either list, to change it.
pub(crate) fn find_any_mut<'a>(pod: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let list = if find(pod, CONTAINERS, name).is_some() {
        CONTAINERS
    } else {
        INIT_CONTAINERS
    };
    let mut entries = of_mut(pod, list).iter_mut();
    entries.find(|entry| entry["name"] == name)
}

/// The proxy, to change it.
pub(crate) fn sidecar_mut(pod: &mut Value) -> Option<&mut Value> {
    find_any_mut(pod, PROXY)
}

/// Removes the entry with this name from `list`.
pub(crate) fn take(pod: &mut Value, list: &str, name: &str) -> Option<Value> {
    let entries = pod.get_mut("spec")?.get_mut(list)?.as_array_mut()?;
    let index = entries.iter().position(|entry| entry["name"] == name)?;
    Some(entries.remove(index))
}

/// Appends `container` to `list`.
pub(crate) fn push(pod: &mut Value, list: &str, container: Value) {
    let entries = &mut pod["spec"][list];
    match entries.as_array_mut() {
        Some(entries) => entries.push(container),
        None => *entries = json!([container]),
    }
}

/// Moves the entry with this name to the start of `list`, or to its end.
pub(crate) fn move_to(pod: &mut Value, list: &str, name: &str, first: bool) {
    let Some(container) = take(pod, list, name) else {
        return;
    };
    if let Some(entries) = pod["spec"][list].as_array_mut() {
        let place = if first { 0 } else { entries.len() };
        entries.insert(place, container);
    }
}

/// The value of a variable in the container's `env`.
pub(crate) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut variables = container["env"].as_array()?.iter();
    variables.find(|variable| variable["name"] == name)?["value"].as_str()
}

/// Appends a variable to the container's `env`.
pub(crate) fn push_variable(container: &mut Value, name: &str, value: &str) {
    let variable = json!({"name": name, "value": value});
    match container["env"].as_array_mut() {
        Some(variables) => variables.push(variable),
        None => container["env"] = json!([variable]),
    }
}

/// Replaces variables of the same names, and appends these.
pub(crate) fn set_environment(container: &mut Value, environment: &BTreeMap<String, String>) {
    if environment.is_empty() {
        return;
    }
    if let Some(variables) = container["env"].as_array_mut() {
        variables.retain(|variable| {
            let name = variable["name"].as_str().unwrap_or_default();
            !environment.contains_key(name)
        });
    }
    for (name, value) in environment {
        push_variable(container, name, value);
    }
}

/// An annotation of the pod.
pub(crate) fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][name].as_str()
}

/// Sets an entry of `metadata.labels` or `metadata.annotations`.
pub(crate) fn set_metadata(pod: &mut Value, map: &str, name: &str, value: &str) {
    let entries = &mut pod["metadata"][map];
    if !entries.is_object() {
        *entries = json!({});
    }
    entries[name] = json!(value);
}

/// Removes an annotation.
pub(crate) fn remove_annotation(pod: &mut Value, name: &str) {
    let annotations = pod
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.shift_remove(name);
    }
}
