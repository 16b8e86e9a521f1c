//! Istio's own functions (`pkg/kube/inject/template.go`). `contains`, `indent` and `omit` differ
//! from those of sprig.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::Value;
use serde_json::Value as Json;

use super::{Function, Result, exactly, fail, sprint, string, texts};
use crate::istio::{names, text, yaml};

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("annotation", annotation),
    ("appendMultusNetwork", append_multus_network),
    ("contains", contains),
    ("directory", directory),
    ("excludeInboundPort", exclude_inbound_port),
    ("excludeInterfaces", same),
    ("formatDuration", format_duration),
    ("fromJSON", from_json),
    ("indent", indent),
    ("index", index),
    ("isset", isset),
    ("kubevirtInterfaces", same),
    ("mergeMaps", merge_maps),
    ("omit", omit),
    ("omitNil", omit_nil),
    ("protoToJSON", to_json),
    ("strdict", strdict),
    ("structToJSON", to_json),
    ("toJSON", to_json),
    ("toJsonMap", to_json_map),
    ("toLower", to_lower),
    ("toYaml", to_yaml),
    ("valueOrDefault", value_or_default),
];

fn annotation(arguments: &[Value]) -> Result {
    let [metadata, name, default] = exactly(arguments)?;
    let annotations = metadata.field("Annotations").unwrap_or(&Value::Nil);
    string(match annotations.field(&sprint(name)) {
        Some(value) => sprint(value),
        // Go prints a missing default so, and templates compare with it.
        None if matches!(default, Value::Nil) => "<nil>".to_owned(),
        None => sprint(default),
    })
}

fn contains(arguments: &[Value]) -> Result {
    let [needle, haystack] = texts(arguments)?;
    Ok(Value::Bool(haystack.contains(&needle)))
}

fn directory(arguments: &[Value]) -> Result {
    let [path] = texts(arguments)?;
    let end = path.rfind('/').map_or(0, |slash| slash + 1);
    string(&path[..end])
}

fn exclude_inbound_port(arguments: &[Value]) -> Result {
    let [port, list] = texts(arguments)?;
    let port = port.trim();
    if port.is_empty() || port == "0" || list.split(',').any(|excluded| excluded == port) {
        return string(&list);
    }
    let excluded = list.split(',').map(str::trim);
    let ports: Vec<_> = excluded
        .filter(|excluded| !excluded.is_empty())
        .chain([port])
        .collect();
    string(ports.join(","))
}

fn same(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    Ok(value.clone())
}

fn format_duration(arguments: &[Value]) -> Result {
    let [duration] = texts(arguments)?;
    match text::protobuf_duration(&duration) {
        Some(duration) => string(text::duration(duration)),
        None => fail(format!("formatDuration: {duration:?} is no duration")),
    }
}

fn from_json(arguments: &[Value]) -> Result {
    let [json] = texts(arguments)?;
    Ok(serde_json::from_str(&json).map_or_else(
        |_| Value::String("{}".into()),
        |json: Json| names::any(&json),
    ))
}

/// Indents all lines but the first.
fn indent(arguments: &[Value]) -> Result {
    let [spaces, source] = exactly(arguments)?;
    super::limits::indented(super::length(spaces)?, &sprint(source))
}

/// The engine's `index`, but an entry that a map does not have is empty: in Go, it is the zero value
/// of the map's type.
fn index(arguments: &[Value]) -> Result {
    let Some((value, indexes)) = arguments.split_first() else {
        return fail("index: an argument is needed");
    };
    let mut value = value.clone();
    for index in indexes {
        value = match (&value, index) {
            (Value::Nil, _) => Value::String("".into()),
            (Value::Map(map), Value::String(key)) => match map.get(key) {
                Some(entry) => entry.clone(),
                None => Value::String("".into()),
            },
            _ => value.index(index)?,
        };
    }
    Ok(value)
}

fn isset(arguments: &[Value]) -> Result {
    let [map, key] = exactly(arguments)?;
    Ok(Value::Bool(map.field(&sprint(key)).is_some()))
}

fn to_json(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    if let Some(json) = value.field("$json") {
        return Ok(json.clone());
    }
    match value {
        Value::Nil => string("{}"),
        value => string(text::json(&names::json(value))),
    }
}

fn to_yaml(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    string(yaml::write(&names::json(value)))
}

fn to_lower(arguments: &[Value]) -> Result {
    let [text] = texts(arguments)?;
    string(text.to_lowercase())
}

fn value_or_default(arguments: &[Value]) -> Result {
    let [value, default] = exactly(arguments)?;
    let is_empty = matches!(value, Value::Nil) || value.as_str() == Some("");
    Ok(if is_empty { default } else { value }.clone())
}

fn merged(maps: &[Value]) -> BTreeMap<Arc<str>, Value> {
    let mut merged = BTreeMap::new();
    for map in maps {
        if let Value::Map(map) = map {
            merged.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    merged
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn merge_maps(arguments: &[Value]) -> Result {
    Ok(Value::Map(Arc::new(merged(arguments))))
}

fn to_json_map(arguments: &[Value]) -> Result {
    let map = Value::Map(Arc::new(merged(arguments)));
    string(text::json(&names::json(&map)))
}

fn omit(arguments: &[Value]) -> Result {
    let Some((map, keys)) = arguments.split_first() else {
        return fail("omit: a map is needed");
    };
    let mut map = merged(std::slice::from_ref(map));
    for key in keys {
        map.remove(sprint(key).as_str());
    }
    Ok(Value::Map(Arc::new(map)))
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all functions")]
fn strdict(arguments: &[Value]) -> Result {
    let pairs = arguments.chunks(2).map(|pair| {
        let value = pair.get(1).map(sprint).unwrap_or_default();
        (sprint(&pair[0]).into(), Value::String(value.into()))
    });
    Ok(Value::Map(Arc::new(pairs.collect())))
}

fn omit_nil(arguments: &[Value]) -> Result {
    let [value] = exactly(arguments)?;
    Ok(without_nil(value).unwrap_or(Value::Nil))
}

/// `value` without `nil`, at any depth. What becomes empty by that is `nil` itself.
fn without_nil(value: &Value) -> Option<Value> {
    match value {
        Value::Nil => None,
        Value::Map(map) => {
            let kept: BTreeMap<_, _> = map
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), without_nil(value)?)))
                .collect();
            (map.is_empty() || !kept.is_empty()).then(|| Value::Map(Arc::new(kept)))
        }
        Value::List(list) => {
            let kept: Vec<_> = list.iter().filter_map(without_nil).collect();
            (list.is_empty() || !kept.is_empty()).then(|| Value::List(kept.into()))
        }
        other => Some(other.clone()),
    }
}

fn append_multus_network(arguments: &[Value]) -> Result {
    let [existing, network] = texts(arguments)?;
    if existing.is_empty() {
        return string(network);
    }
    let Some(end) = existing.rfind(']') else {
        let present = existing.split(',').any(|entry| entry.trim() == network);
        return string(if present {
            existing
        } else {
            format!("{existing}, {network}")
        });
    };
    let Ok(Json::Array(networks)) = serde_json::from_str(&existing) else {
        return string(existing);
    };
    let (namespace, name) = network.split_once('/').unwrap_or(("", &network));
    let present = networks.iter().any(|entry| {
        entry["name"] == name && entry["namespace"].as_str().unwrap_or_default() == namespace
    });
    if present {
        return string(existing);
    }
    let namespace = if namespace.is_empty() {
        String::new()
    } else {
        format!(r#", "namespace": "{namespace}""#)
    };
    let (before, after) = existing.split_at(end);
    string(format!(
        r#"{before}, {{"name": "{name}"{namespace}}}{after}"#
    ))
}
