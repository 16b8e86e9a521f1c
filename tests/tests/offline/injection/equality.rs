//! When a result equals a golden file: as objects of the API, not as text.

use serde_json::{Map, Value};

/// Objects that Go writes though they have nothing.
const GO_OBJECTS: &[&str] = &[
    "metadata",
    "resources",
    "status",
    "strategy",
    "updateStrategy",
];

/// Fields that Go leaves out when they are zero, or writes though nobody did.
const GO_ZEROS: &[&str] = &[
    "availableReplicas",
    "currentNumberScheduled",
    "desiredNumberScheduled",
    "initialDelaySeconds",
    "latestVersion",
    "minReadySeconds",
    "numberMisscheduled",
    "numberReady",
    "observedGeneration",
    "paused",
    "replicas",
    "test",
    "unavailableReplicas",
    "updatedReplicas",
];

/// Whether `ours` is `golden`.
pub(super) fn check(ours: &Value, golden: &Value) -> Result<(), String> {
    first_difference("", &normal("", ours), &normal("", golden))
}

/// Whether both are the same, whatever the order of their keys.
pub(super) fn same(first: &Value, second: &Value) -> Result<(), String> {
    first_difference("", first, second)
}

/// Whether both are the same, even as text.
pub(super) fn identical(first: &Value, second: &Value) -> Result<(), String> {
    first_difference("", first, second)?;
    let (first, second) = (first.to_string(), second.to_string());
    if first != second {
        return Err("the order of keys differs".to_owned());
    }
    Ok(())
}

fn first_difference(path: &str, ours: &Value, golden: &Value) -> Result<(), String> {
    match (ours, golden) {
        (Value::Object(ours), Value::Object(golden)) => {
            let keys = ours.keys().chain(golden.keys());
            for key in keys {
                let (ours, golden) = (ours.get(key), golden.get(key));
                let (ours, golden) = (ours.unwrap_or(&Value::Null), golden.unwrap_or(&Value::Null));
                first_difference(&format!("{path}/{key}"), ours, golden)?;
            }
            Ok(())
        }
        (Value::Array(ours), Value::Array(golden)) if ours.len() == golden.len() => {
            for (index, (ours, golden)) in ours.iter().zip(golden).enumerate() {
                first_difference(&format!("{path}/{index}"), ours, golden)?;
            }
            Ok(())
        }
        _ if ours == golden => Ok(()),
        _ => Err(format!("{path}: {ours} is not {golden}")),
    }
}

/// `value` as Go would write it.
fn normal(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let quantities = ["limits", "requests"].contains(&key);
            let fields = object.iter().filter_map(|(key, value)| {
                let value = match value {
                    value if quantities => quantity(value),
                    value => normal(key, value),
                };
                (!is_left_out(key, &value)).then(|| (key.clone(), value))
            });
            fields.collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(|entry| normal("", entry)).collect(),
        // The text of the status is compared, with its order.
        Value::String(text) if key != "sidecar.istio.io/status" => embedded(text),
        other => other.clone(),
    }
}

fn is_left_out(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || key == "divisor" && text == "0",
        Value::Object(object) => object.is_empty() && GO_OBJECTS.contains(&key),
        Value::Array(list) => list.is_empty(),
        zero => (zero == 0 || zero == false) && GO_ZEROS.contains(&key),
    }
}

/// JSON in a string is compared as JSON.
fn embedded(text: &str) -> Value {
    let json: Option<Value> = serde_json::from_str(text).ok();
    match json.filter(|json| json.is_object() || json.is_array()) {
        Some(json) => normal("", &json),
        None => text.into(),
    }
}

/// A quantity in its smallest unit that is used.
fn quantity(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let units = [
        ("m", 1),
        ("Ki", 1024 * 1000),
        ("Mi", 1_048_576_000),
        ("Gi", 1_073_741_824_000),
        ("", 1000),
    ];
    for (suffix, factor) in units {
        let number = text
            .strip_suffix(suffix)
            .and_then(|number| number.parse::<i64>().ok());
        if let Some(number) = number {
            return (number * factor).into();
        }
    }
    text.into()
}
