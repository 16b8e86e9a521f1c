//! Sprig's functions on dictionaries, without those that change their argument.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::{TemplateError, Value};
use serde_json::Value as Json;

use super::{Function, Result, exactly, fail, list, sprint, string, texts};
use crate::istio::names;

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("deepCopy", |a| Ok(exactly::<1>(a)?[0].clone())),
    ("dict", dict),
    ("dig", dig),
    ("fromJson", from_json),
    ("get", get),
    ("hasKey", has_key),
    ("keys", keys),
    ("pick", pick),
    ("toJson", |a| string(crate::istio::text::json(&json(a)?))),
    ("toPrettyJson", |a| string(format!("{:#}", json(a)?))),
    ("toRawJson", |a| string(json(a)?.to_string())),
    ("values", values),
];

type Dictionary = BTreeMap<Arc<str>, Value>;

fn json(arguments: &[Value]) -> gotmpl::Result<Json> {
    let [value] = exactly(arguments)?;
    Ok(names::json(value))
}

fn dictionary(value: &Value) -> gotmpl::Result<Arc<Dictionary>> {
    match value {
        Value::Map(map) => Ok(Arc::clone(map)),
        Value::Nil => Ok(Arc::default()),
        other => Err(TemplateError::Exec(format!(
            "a map is needed, not a {}",
            other.type_name()
        ))),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn dict(arguments: &[Value]) -> Result {
    let pairs = arguments.chunks(2).map(|pair| {
        let value = pair.get(1).cloned().unwrap_or(Value::String("".into()));
        (sprint(&pair[0]).into(), value)
    });
    Ok(Value::Map(Arc::new(pairs.collect())))
}

fn get(arguments: &[Value]) -> Result {
    let [map, key] = exactly(arguments)?;
    let found = dictionary(map)?.get(sprint(key).as_str()).cloned();
    Ok(found.unwrap_or(Value::String("".into())))
}

fn has_key(arguments: &[Value]) -> Result {
    let [map, key] = exactly(arguments)?;
    Ok(Value::Bool(
        dictionary(map)?.contains_key(sprint(key).as_str()),
    ))
}

fn keys(arguments: &[Value]) -> Result {
    let mut keys = Vec::new();
    for argument in arguments {
        keys.extend(dictionary(argument)?.keys().cloned().map(Value::String));
    }
    list(keys)
}

fn values(arguments: &[Value]) -> Result {
    let [map] = exactly(arguments)?;
    list(dictionary(map)?.values().cloned().collect())
}

fn pick(arguments: &[Value]) -> Result {
    let Some((map, keys)) = arguments.split_first() else {
        return fail("pick: a map is needed");
    };
    let map = dictionary(map)?;
    let keys: Vec<String> = keys.iter().map(sprint).collect();
    let picked = map
        .iter()
        .filter(|(key, _)| keys.iter().any(|k| **k == ***key));
    let picked = picked.map(|(key, value)| (key.clone(), value.clone()));
    Ok(Value::Map(Arc::new(picked.collect())))
}

/// The value at a path of keys, else the default, which is the last argument but one.
fn dig(arguments: &[Value]) -> Result {
    let [path @ .., default, map] = arguments else {
        return fail("dig: keys, a default and a map are needed");
    };
    let mut value = map.clone();
    for key in path {
        match value.field(&sprint(key)) {
            Some(found) => value = found.clone(),
            None => return Ok(default.clone()),
        }
    }
    Ok(value)
}

fn from_json(arguments: &[Value]) -> Result {
    let [text] = texts(arguments)?;
    let json: Option<Json> = serde_json::from_str(&text).ok();
    Ok(json.map_or(Value::Nil, |json| names::any(&json)))
}
