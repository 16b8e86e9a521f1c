//! Kubernetes' strategic merge patch, for pods.
//!
//! Lists whose entries have a key are merged by it, other lists are replaced, and `null` deletes.
//! The order of a merged list is Kubernetes' own: an entry that only the old list has comes before
//! an entry of the patch only if the old list had both in that order. So new entries of the patch
//! come first.

use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// The key by which the entries of this list in a pod are merged; none for a list that is replaced.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "schedulingGates"
        | "resourceClaims" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// Whether the values of this list are merged as a set.
fn is_set(field: &str) -> bool {
    field == "finalizers"
}

/// Merges `patch` into `target`.
pub(crate) fn merge(target: &mut Value, patch: &Value) -> Result<(), String> {
    match (&mut *target, patch) {
        (Value::Object(object), Value::Object(patch)) => merge_object(object, patch),
        (_, patch) => {
            *target = without_directives(patch);
            Ok(())
        }
    }
}

fn merge_object(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *target = object_without_directives(patch);
            return Ok(());
        }
        Some(Some("delete")) => {
            target.clear();
            return Ok(());
        }
        Some(_) => {
            return Err(format!(
                "unknown directive {DIRECTIVE}: {}",
                patch[DIRECTIVE]
            ));
        }
    }
    if let Some(keys) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        target.retain(|key, _| keys.iter().any(|retained| retained == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_values(target.get_mut(list), value);
        } else if !is_directive(key) {
            merge_entry(target, key, value)?;
        }
    }
    Ok(())
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER)
}

fn delete_values(list: Option<&mut Value>, deleted: &Value) {
    if let (Some(list), Some(deleted)) = (list.and_then(Value::as_array_mut), deleted.as_array()) {
        list.retain(|value| !deleted.contains(value));
    }
}

fn merge_entry(target: &mut Map<String, Value>, key: &str, value: &Value) -> Result<(), String> {
    if value.is_null() {
        target.shift_remove(key);
        return Ok(());
    }
    let Some(old) = target.get_mut(key) else {
        target.insert(key.to_owned(), without_directives(value));
        return Ok(());
    };
    match (&mut *old, value) {
        (Value::Object(old), Value::Object(patch)) => merge_object(old, patch),
        (Value::Array(old), Value::Array(patch)) if merge_key(key).is_some() => {
            let merge_key = merge_key(key).unwrap_or_default();
            merge_list(old, patch, merge_key).map_err(|problem| format!("{key}: {problem}"))
        }
        (Value::Array(old), Value::Array(patch)) if is_set(key) => {
            let new: Vec<_> = patch.iter().filter(|value| !old.contains(value)).collect();
            let new: Vec<_> = new.into_iter().cloned().collect();
            old.extend(new);
            Ok(())
        }
        _ => {
            *old = without_directives(value);
            Ok(())
        }
    }
}

fn merge_list(old: &mut Vec<Value>, patch: &[Value], key: &str) -> Result<(), String> {
    let patch = apply_list_directives(old, patch, key)?;
    if patch.is_empty() {
        return Ok(());
    }
    let order: Vec<Value> = old.iter().map(|entry| entry[key].clone()).collect();
    let mut untouched = std::mem::take(old);
    let mut merged: Vec<Value> = Vec::new();
    for entry in patch {
        let id = entry.get(key).filter(|id| !id.is_null());
        let id = id.ok_or_else(|| format!("an entry of the patch has no {key}: {entry}"))?;
        if let Some(earlier) = merged.iter_mut().find(|earlier| &earlier[key] == id) {
            merge(earlier, entry)?;
        } else if let Some(index) = untouched.iter().position(|old| &old[key] == id) {
            let mut target = untouched.remove(index);
            merge(&mut target, entry)?;
            merged.push(target);
        } else {
            merged.push(without_directives(entry));
        }
    }
    *old = interleave(untouched, merged, key, &order);
    Ok(())
}

/// The patch without entries that are only directives, which are applied to `old`.
fn apply_list_directives<'a>(
    old: &mut Vec<Value>,
    patch: &'a [Value],
    key: &str,
) -> Result<Vec<&'a Value>, String> {
    let mut entries = Vec::new();
    let mut replace = false;
    for entry in patch {
        match entry.get(DIRECTIVE).map(|directive| directive.as_str()) {
            None => entries.push(entry),
            Some(Some("replace")) => replace = true,
            Some(Some("delete")) => old.retain(|old| old[key] != entry[key]),
            Some(_) => return Err(format!("{DIRECTIVE} {} in a list", entry[DIRECTIVE])),
        }
    }
    if replace {
        *old = entries.into_iter().map(without_directives).collect();
        return Ok(Vec::new());
    }
    Ok(entries)
}

/// Both lists in one: an untouched entry comes before a merged one if the old list had both in that
/// order.
fn interleave(untouched: Vec<Value>, merged: Vec<Value>, key: &str, order: &[Value]) -> Vec<Value> {
    let place = |entry: &Value| order.iter().position(|id| *id == entry[key]);
    let mut all = Vec::with_capacity(untouched.len() + merged.len());
    let mut untouched = untouched.into_iter().peekable();
    for entry in merged {
        if let Some(there) = place(&entry) {
            while let Some(earlier) =
                untouched.next_if(|entry| place(entry).is_some_and(|here| here < there))
            {
                all.push(earlier);
            }
        }
        all.push(entry);
    }
    all.extend(untouched);
    all
}

/// A value of the patch that is new in the target: without directives and without `null`.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(object_without_directives(object)),
        Value::Array(list) => list
            .iter()
            .filter(|entry| entry.get(DIRECTIVE).is_none())
            .map(without_directives)
            .collect(),
        other => other.clone(),
    }
}

fn object_without_directives(object: &Map<String, Value>) -> Map<String, Value> {
    object
        .iter()
        .filter(|(key, value)| {
            !value.is_null() && !is_directive(key) && !key.starts_with(DELETE_FROM)
        })
        .map(|(key, value)| (key.clone(), without_directives(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut target: Value, patch: &Value, expected: &Value) {
        merge(&mut target, patch).unwrap();
        // As text, for the order of keys and entries.
        assert_eq!(target.to_string(), expected.to_string());
    }

    fn env(names: &[&str]) -> Value {
        let variables: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"env": variables})
    }

    #[test]
    fn objects_are_merged_and_null_deletes() {
        check(
            json!({"a": 1, "b": {"c": 2, "d": 3}, "x": [1]}),
            &json!({"b": {"c": null, "e": 4}, "x": [2], "f": {"g": null}}),
            &json!({"a": 1, "b": {"d": 3, "e": 4}, "x": [2], "f": {}}),
        );
    }

    #[test]
    fn new_entries_come_first_and_old_ones_keep_their_order() {
        check(
            env(&["a", "b"]),
            &env(&["n", "m"]),
            &env(&["n", "m", "a", "b"]),
        );
        check(
            env(&["a", "b", "c"]),
            &env(&["n", "b"]),
            &env(&["n", "a", "b", "c"]),
        );
        check(
            env(&["a", "b", "c"]),
            &env(&["c", "n", "a"]),
            &env(&["b", "c", "n", "a"]),
        );
        check(env(&["a"]), &env(&["a", "a"]), &env(&["a"]));
    }

    #[test]
    fn entries_are_merged_by_their_key() {
        check(
            json!({"ports": [{"containerPort": 80, "name": "http"}]}),
            &json!({"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 90}]}),
            &json!({"ports": [
                {"containerPort": 80, "name": "http", "protocol": "TCP"}, {"containerPort": 90}
            ]}),
        );
        let mut target = env(&["a"]);
        let problem = merge(&mut target, &json!({"env": [{"value": "x"}]})).unwrap_err();
        assert!(
            problem.contains("env") && problem.contains("name"),
            "{problem}"
        );
    }

    #[test]
    fn directives_replace_and_delete() {
        check(
            json!({"a": {"b": 1}, "c": {"d": 1}}),
            &json!({"a": {"$patch": "replace", "e": 2}, "c": {"$patch": "delete"}}),
            &json!({"a": {"e": 2}, "c": {}}),
        );
        let delete = json!({"env": [{"name": "a", "$patch": "delete"}]});
        check(env(&["a", "b"]), &delete, &env(&["b"]));
        let replace = json!({"env": [{"$patch": "replace"}, {"name": "n"}]});
        check(env(&["a", "b"]), &replace, &env(&["n"]));
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            &json!({"volumes": [{"$retainKeys": ["name", "csi"], "name": "v", "csi": {}}]}),
            &json!({"volumes": [{"name": "v", "csi": {}}]}),
        );
        check(
            json!({"finalizers": ["a", "b"]}),
            &json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}),
            &json!({"finalizers": ["b", "c"]}),
        );
    }
}
