//! Patches: RFC 7386, RFC 6902, and Kubernetes' own kind as far as it is the first.

use serde_json::{Value, json};

use super::status::Failure;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own, which merges lists by keys.
    Strategic,
    /// Server-side apply, as far as it adds and replaces: lists of named objects are merged by name.
    Apply,
}

impl Kind {
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type {
            "application/merge-patch+json" => Some(Self::Merge),
            "application/json-patch+json" => Some(Self::Json),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// `object` with `patch` applied.
pub(super) fn patched(kind: Kind, object: &Value, patch: &Value) -> Result<Value, Failure> {
    let mut object = object.clone();
    match kind {
        Kind::Merge => merge(&mut object, patch),
        Kind::Strategic => {
            ensure_no_lists(patch)?;
            merge(&mut object, patch);
        }
        Kind::Apply => apply_fields(&mut object, patch),
        Kind::Json => {
            let steps = patch
                .as_array()
                .ok_or_else(|| Failure::bad_request("not a list"))?;
            for step in steps {
                apply(&mut object, step)?;
            }
        }
    }
    Ok(object)
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().map(|object| object.remove(name));
        } else {
            merge(&mut object[name], value);
        }
    }
}

fn apply_fields(object: &mut Value, applied: &Value) {
    match (object, applied) {
        (Value::Object(object), Value::Object(fields)) => {
            for (name, value) in fields {
                apply_fields(object.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(items), Value::Array(applied))
            if applied.iter().all(|item| item["name"].is_string()) =>
        {
            for item in applied {
                let found = items.iter_mut().find(|found| found["name"] == item["name"]);
                match found {
                    Some(found) => apply_fields(found, item),
                    None => items.push(item.clone()),
                }
            }
        }
        (object, applied) => *object = applied.clone(),
    }
}

/// Merging lists requires keys that only Kubernetes' types define.
fn ensure_no_lists(patch: &Value) -> Result<(), Failure> {
    match patch {
        Value::Array(_) => Err(Failure::internal(
            "this server cannot merge lists by their keys",
        )),
        Value::Object(fields) => fields.values().try_for_each(ensure_no_lists),
        _ => Ok(()),
    }
}

fn apply(object: &mut Value, step: &Value) -> Result<(), Failure> {
    let text = |field: &str| step[field].as_str().unwrap_or_default();
    let (operation, path) = (text("op"), text("path"));
    let failed = || {
        Failure::invalid(format!(
            "the server rejected our request due to an error in our request: {step}"
        ))
    };
    if operation == "test" {
        let found = object.pointer(path).unwrap_or(&Value::Null);
        return if *found == step["value"] {
            Ok(())
        } else {
            Err(failed())
        };
    }
    let (parent, name) = path.rsplit_once('/').ok_or_else(failed)?;
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent_value = object.pointer_mut(parent).ok_or_else(failed)?;
    let value = step["value"].clone();
    match (operation, parent_value) {
        ("add" | "replace", Value::Object(fields)) => {
            fields.insert(name, value);
        }
        ("add", Value::Array(items)) if name == "-" => items.push(value),
        ("add", Value::Array(items)) => {
            let index = name.parse().ok().filter(|index| *index <= items.len());
            items.insert(index.ok_or_else(failed)?, value);
        }
        ("replace", Value::Array(items)) => {
            let index: usize = name.parse().map_err(|_| failed())?;
            *items.get_mut(index).ok_or_else(failed)? = value;
        }
        ("remove", Value::Object(fields)) => {
            fields.remove(&name).ok_or_else(failed)?;
        }
        ("remove", Value::Array(items)) => {
            let index = name.parse().ok().filter(|index| *index < items.len());
            items.remove(index.ok_or_else(failed)?);
        }
        _ => return Err(failed()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_what_is_null() {
        let object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 2});
        let patch = json!({"a": {"c": [3], "e": 4}, "d": null});
        let expected = json!({"a": {"b": 1, "c": [3], "e": 4}});
        assert_eq!(patched(Kind::Merge, &object, &patch), Ok(expected));
    }

    #[test]
    fn a_json_patch_is_applied_only_if_its_tests_hold() {
        let object = json!({"spec": {"taints": [{"key": "a"}, {"key": "b"}]}});
        let steps = |key: &str| {
            json!([
                {"op": "test", "path": "/spec/taints/0/key", "value": key},
                {"op": "remove", "path": "/spec/taints/0"},
            ])
        };
        let expected = json!({"spec": {"taints": [{"key": "b"}]}});
        assert_eq!(patched(Kind::Json, &object, &steps("a")), Ok(expected));
        assert!(patched(Kind::Json, &object, &steps("b")).is_err());
    }
}
