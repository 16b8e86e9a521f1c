//! Names of fields: Kubernetes' and protobuf's in JSON, and those of Go's structs in templates.
//!
//! Templates see a struct as a map with Go's names and the mark [`STRUCT`]. Maps of the API, such as
//! labels, keep their keys. With the mark, a function can turn a struct into JSON again.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::Value;
use serde_json::{Map, Value as Json};

/// Marks a map that is a struct in Go. Templates cannot see it: no field of Go has such a name.
pub(super) const STRUCT: &str = "$struct";

/// Names where Go's is not the JSON name with a capital letter.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("apiVersion", "APIVersion"),
    ("awsElasticBlockStore", "AWSElasticBlockStore"),
    ("csi", "CSI"),
    ("dnsConfig", "DNSConfig"),
    ("dnsPolicy", "DNSPolicy"),
    ("fc", "FC"),
    ("fsGroup", "FSGroup"),
    ("fsGroupChangePolicy", "FSGroupChangePolicy"),
    ("gcePersistentDisk", "GCEPersistentDisk"),
    ("grpc", "GRPC"),
    ("httpGet", "HTTPGet"),
    ("httpHeaders", "HTTPHeaders"),
    ("iscsi", "ISCSI"),
    ("nfs", "NFS"),
    ("rbd", "RBD"),
    ("scaleIO", "ScaleIO"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("setHostnameAsFQDN", "SetHostnameAsFQDN"),
    ("storageos", "StorageOS"),
    ("tcpSocket", "TCPSocket"),
    ("tty", "TTY"),
    ("uid", "UID"),
];

/// Fields that are maps in Go, with keys of their own.
const MAPS: &[&str] = &[
    "annotations",
    "data",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "overhead",
    "proxyMetadata",
    "requests",
    "runtimeValues",
    "volumeAttributes",
];

/// The order of fields in Go's structs, where templates turn them into JSON.
const ORDER: &[&str] = &["name", "hostPort", "containerPort", "protocol", "hostIP"];

/// The name in Go of a field in JSON.
pub(super) fn in_go(json: &str) -> String {
    if let Some((_, go)) = EXCEPTIONS.iter().find(|(name, _)| *name == json) {
        return (*go).to_owned();
    }
    capitalised(json)
}

/// `text` with a capital letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

fn in_json(go: &str) -> String {
    if let Some((json, _)) = EXCEPTIONS.iter().find(|(_, name)| *name == go) {
        return (*json).to_owned();
    }
    let mut characters = go.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

/// A struct for templates.
pub(super) fn structure(object: &Map<String, Json>) -> BTreeMap<Arc<str>, Value> {
    let mut fields: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    fields.insert(STRUCT.into(), Value::Bool(true));
    for (name, value) in object {
        fields.insert(in_go(name).into(), field(name, value));
    }
    fields
}

/// A protobuf message for templates, with a getter for each of its fields.
pub(super) fn with_getters(message: Value) -> Value {
    let fields = match &message {
        Value::Map(fields) if fields.contains_key(STRUCT) => fields,
        Value::List(list) => {
            return Value::List(list.iter().cloned().map(with_getters).collect());
        }
        _ => return message,
    };
    let mut with = BTreeMap::new();
    for (name, value) in fields.iter() {
        let value = with_getters(value.clone());
        if !name.starts_with('$') {
            with.insert(format!("Get{name}").into(), value.clone());
        }
        with.insert(name.clone(), value);
    }
    Value::Map(Arc::new(with))
}

fn field(name: &str, value: &Json) -> Value {
    match value {
        Json::Object(map) if MAPS.contains(&name) => plain_map(map),
        Json::Object(object) => Value::Map(Arc::new(structure(object))),
        Json::Array(list) => Value::List(list.iter().map(|entry| field("", entry)).collect()),
        scalar => plain(scalar),
    }
}

fn plain_map(map: &Map<String, Json>) -> Value {
    let entries = map.iter();
    Value::Map(Arc::new(
        entries
            .map(|(key, value)| (key.as_str().into(), plain(value)))
            .collect(),
    ))
}

/// JSON for templates, with its own keys. Integers stay integers.
pub(super) fn plain(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(list) => Value::List(list.iter().map(plain).collect()),
        Json::Object(map) => plain_map(map),
    }
}

/// JSON as Go decodes it into `any`: all numbers are floating-point.
pub(super) fn any(value: &Json) -> Value {
    match value {
        Json::Number(number) => Value::Float(number.as_f64().unwrap_or_default()),
        Json::Array(list) => Value::List(list.iter().map(any).collect()),
        Json::Object(map) => Value::Map(Arc::new(
            map.iter()
                .map(|(key, value)| (key.as_str().into(), any(value)))
                .collect(),
        )),
        scalar => plain(scalar),
    }
}

/// JSON from a value of a template, as Go encodes it: keys are sorted, and structs have the names of
/// JSON, without fields that are zero.
pub(super) fn json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(integer) => (*integer).into(),
        Value::Uint(integer) => (*integer).into(),
        Value::Float(float) => number(*float),
        Value::String(text) => Json::String(text.to_string()),
        Value::List(list) => list.iter().map(json).collect(),
        Value::Map(map) if map.contains_key(STRUCT) => struct_json(map),
        Value::Map(map) => map
            .iter()
            .map(|(key, value)| (key.to_string(), json(value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// A floating-point number, written as an integer if it is one.
fn number(float: f64) -> Json {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only whole numbers that fit are converted"
    )]
    if float.fract() == 0.0 && float.abs() < 9e15 {
        return (float as i64).into();
    }
    float.into()
}

fn struct_json(fields: &BTreeMap<Arc<str>, Value>) -> Json {
    let mut sorted: Vec<_> = fields
        .iter()
        .filter(|(name, value)| !name.starts_with('$') && !is_zero(value))
        .map(|(name, value)| (in_json(name), json(value)))
        .collect();
    let place = |name: &str| ORDER.iter().position(|field| *field == name);
    sorted.sort_by_key(|(name, _)| place(name).unwrap_or(ORDER.len()));
    sorted.into_iter().collect::<Map<_, _>>().into()
}

/// Whether Go leaves the field out.
fn is_zero(value: &Value) -> bool {
    !value.is_truthy()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structs_have_gos_names_and_come_back_as_json() {
        let port = json!({"containerPort": 80, "name": "http", "protocol": "TCP"});
        let value = field("", &port);
        assert_eq!(value.field("ContainerPort"), Some(&Value::Int(80)));
        let text = json(&value).to_string();
        assert_eq!(
            text,
            r#"{"name":"http","containerPort":80,"protocol":"TCP"}"#
        );
        let probe = json!({"httpGet": {"port": "http"}});
        let value = field("", &probe);
        assert!(value.field("HTTPGet").is_some());
        assert_eq!(json(&value), probe);
    }

    #[test]
    fn maps_keep_their_keys() {
        let object = json!({"labels": {"app": "x", "uid": "y"}, "uid": "z"});
        let value = field("", &object);
        let labels = value.field("Labels").unwrap();
        assert_eq!(labels.field("app"), Some(&Value::String("x".into())));
        assert_eq!(json(&value), object);
    }

    #[test]
    fn numbers_of_values_are_floating_point() {
        assert_eq!(any(&json!(15020)), Value::Float(15020.0));
        assert_eq!(json(&any(&json!([1, 2.5]))), json!([1, 2.5]));
    }
}
