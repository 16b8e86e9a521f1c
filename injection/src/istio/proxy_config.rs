//! Istio's `ProxyConfig`: how the proxies of the mesh, or of one pod, are configured.

use std::sync::Arc;

use gotmpl::Value;
use serde_json::{Map, Value as Json, json};

use super::{names, text};
use crate::annotation_values::without_control_characters;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    /// A number whose absence means something else than 0.
    OptionalNumber,
    /// A condition whose absence means something else than `false`.
    OptionalBool,
    Duration,
    OneOf(&'static [&'static str]),
    Strings,
    Message,
    Map,
}

/// The fields, in the order of the protobuf message, which is that of its JSON.
const FIELDS: &[(&str, Kind)] = &[
    ("configPath", Kind::Text),
    ("binaryPath", Kind::Text),
    ("serviceCluster", Kind::Text),
    ("tracingServiceName", Kind::OneOf(TRACING_NAMES)),
    ("drainDuration", Kind::Duration),
    ("discoveryAddress", Kind::Text),
    ("zipkinAddress", Kind::Text),
    ("statsdUdpAddress", Kind::Text),
    ("proxyAdminPort", Kind::Number),
    (
        "controlPlaneAuthPolicy",
        Kind::OneOf(&["NONE", "MUTUAL_TLS"]),
    ),
    ("customConfigFile", Kind::Text),
    ("statNameLength", Kind::Number),
    ("concurrency", Kind::OptionalNumber),
    ("proxyBootstrapTemplatePath", Kind::Text),
    (
        "interceptionMode",
        Kind::OneOf(&["REDIRECT", "TPROXY", "NONE"]),
    ),
    ("tracing", Kind::Message),
    ("envoyAccessLogService", Kind::Message),
    ("envoyMetricsService", Kind::Message),
    ("proxyMetadata", Kind::Map),
    ("runtimeValues", Kind::Map),
    ("statusPort", Kind::Number),
    ("extraStatTags", Kind::Strings),
    ("terminationDrainDuration", Kind::Duration),
    ("meshId", Kind::Text),
    ("readinessProbe", Kind::Message),
    ("proxyStatsMatcher", Kind::Message),
    ("holdApplicationUntilProxyStarts", Kind::OptionalBool),
    ("caCertificatesPem", Kind::Strings),
    ("image", Kind::Message),
    ("privateKeyProvider", Kind::Message),
    ("proxyHeaders", Kind::Message),
];

const TRACING_NAMES: &[&str] = &[
    "APP_LABEL_AND_NAMESPACE",
    "CANONICAL_NAME_ONLY",
    "CANONICAL_NAME_AND_NAMESPACE",
];

/// The fields that are left out of JSON when they have their default.
const OMITTED_DEFAULTS: &[&str] = &[
    "configPath",
    "binaryPath",
    "controlPlaneAuthPolicy",
    "serviceCluster",
    "drainDuration",
    "terminationDrainDuration",
    "discoveryAddress",
    "proxyAdminPort",
    "statNameLength",
    "statusPort",
];

/// Fields of a configuration, whose values have been checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change(Map<String, Json>);

impl Change {
    /// Of an object; `null` changes nothing.
    pub(super) fn of(fields: &Json) -> Result<Self, String> {
        let fields = match fields {
            Json::Null => return Ok(Self::default()),
            Json::Object(fields) => fields,
            other => return Err(format!("a ProxyConfig is an object, not {other}")),
        };
        let mut change = Self::default();
        for (name, value) in fields {
            let name = camel_case(name);
            let set = change.set(&name, value);
            set.map_err(|problem| format!("{name} {value}: {problem}"))?;
        }
        Ok(change)
    }

    /// Of an object in YAML.
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        Self::of(&super::yaml::read(yaml)?)
    }

    /// Adds a field; `null` is none.
    pub(super) fn set(&mut self, name: &str, value: &Json) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let field = FIELDS.iter().find(|(field, _)| *field == name);
        let value = match field {
            Some((_, kind)) => checked(*kind, value)?,
            // A field that is newer than this list.
            None => value.clone(),
        };
        check_value(name, &value)?;
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// Refuses control characters in what templates write between quotes.
    pub(super) fn check_quoted(&self) -> Result<(), String> {
        for field in ["proxyMetadata", "image"] {
            let value = self.0.get(field).unwrap_or(&Json::Null);
            check_entries(value).map_err(|problem| format!("{field} {problem}"))?;
        }
        Ok(())
    }
}

/// Refuses control characters in the entries of an object: between quotes in a template, a line break
/// could add fields to the pod.
pub(super) fn check_entries(object: &Json) -> Result<(), String> {
    for (name, value) in object.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        without_control_characters(name)
            .and_then(|()| without_control_characters(value))
            .map_err(|problem| format!("{name:?}: {problem}"))?;
    }
    Ok(())
}

/// A configuration, complete with Istio's defaults.
#[derive(Clone, Debug)]
pub(super) struct ProxyConfig {
    fields: Map<String, Json>,
    /// The tracing that is left out of JSON.
    default_tracing: Option<Json>,
}

impl ProxyConfig {
    /// The defaults of Istio up to 1.21, which traced to Zipkin.
    pub(super) fn defaults_with_zipkin() -> Self {
        let tracing = json!({"zipkin": {"address": "zipkin.istio-system:9411"}});
        let mut config = Self::defaults();
        config.fields.insert("tracing".to_owned(), tracing.clone());
        config.default_tracing = Some(tracing);
        config
    }

    /// Istio's defaults.
    pub(super) fn defaults() -> Self {
        let defaults = json!({
            "configPath": "./etc/istio/proxy",
            "binaryPath": "/usr/local/bin/envoy",
            "serviceCluster": "istio-proxy",
            "drainDuration": "45s",
            "discoveryAddress": "istiod.istio-system.svc:15012",
            "proxyAdminPort": 15000,
            "controlPlaneAuthPolicy": "MUTUAL_TLS",
            "statNameLength": 189,
            "statusPort": 15020,
            "terminationDrainDuration": "5s",
        });
        Self {
            fields: defaults.as_object().cloned().unwrap_or_default(),
            default_tracing: None,
        }
    }

    /// This configuration with a change: each field replaces the old one, but the entries of
    /// `proxyMetadata` and `proxyHeaders` are merged.
    pub(super) fn with(&self, change: &Change) -> Self {
        let mut changed = self.clone();
        for (name, value) in &change.0 {
            changed.set(name, value);
        }
        changed
    }

    fn set(&mut self, name: &str, value: &Json) {
        match (name, self.fields.get_mut(name), value) {
            ("proxyMetadata" | "proxyHeaders", Some(Json::Object(old)), Json::Object(new)) => {
                old.extend(new.clone());
            }
            _ => {
                self.fields.insert(name.to_owned(), value.clone());
            }
        }
    }

    /// Whether the application waits for the proxy.
    pub(super) fn holds_application(&self) -> bool {
        self.fields.get("holdApplicationUntilProxyStarts") == Some(&Json::Bool(true))
    }

    /// `REDIRECT`, `TPROXY` or `NONE`.
    pub(super) fn interception_mode(&self) -> &str {
        let mode = self.fields.get("interceptionMode").and_then(Json::as_str);
        mode.unwrap_or("REDIRECT")
    }

    /// The port of pilot-agent.
    pub(super) fn status_port(&self) -> i64 {
        self.fields
            .get("statusPort")
            .and_then(Json::as_i64)
            .unwrap_or(0)
    }

    /// The variant of the proxy's image.
    pub(super) fn image_type(&self) -> &str {
        let image_type = self
            .fields
            .get("image")
            .and_then(|image| image["imageType"].as_str());
        image_type.unwrap_or_default()
    }

    /// The struct that templates see.
    pub(super) fn for_templates(&self) -> Value {
        let mut fields = names::structure(&self.fields);
        let mode = gotmpl::tmap! { "String" => self.interception_mode() };
        fields.insert("InterceptionMode".into(), mode);
        let metadata = fields.entry("ProxyMetadata".into());
        metadata.or_insert_with(|| Value::Map(Arc::default()));
        for (name, kind) in FIELDS {
            let name = names::in_go(name);
            let is_optional = matches!(kind, Kind::OptionalBool | Kind::OptionalNumber);
            if let Some(value) = fields.get_mut(name.as_str()).filter(|_| is_optional) {
                let wrapped =
                    gotmpl::tmap! { "Value" => value.clone(), "GetValue" => value.clone() };
                *value = wrapped;
            }
        }
        fields.insert("$json".into(), Value::String(self.to_json().into()));
        names::with_getters(Value::Map(Arc::new(fields)))
    }

    /// The JSON for the proxy: without what is a default or empty.
    pub(super) fn to_json(&self) -> String {
        let defaults = Self::defaults();
        let unknown = self.fields.keys().map(String::as_str);
        let unknown = unknown.filter(|name| FIELDS.iter().all(|(field, _)| field != name));
        let known = FIELDS.iter().map(|(field, _)| *field);
        let mut written = Map::new();
        for name in known.chain(unknown) {
            let Some(value) = self.fields.get(name) else {
                continue;
            };
            let is_default = match name {
                "tracing" => self.default_tracing.as_ref() == Some(value),
                name => {
                    OMITTED_DEFAULTS.contains(&name) && defaults.fields.get(name) == Some(value)
                }
            };
            if !is_default && !is_empty(name, value) {
                written.insert(name.to_owned(), in_order(name, value));
            }
        }
        Json::Object(written).to_string()
    }
}

/// Protobuf writes the entries of maps in the order of their keys.
fn in_order(name: &str, value: &Json) -> Json {
    let mut value = value.clone();
    let is_map = FIELDS
        .iter()
        .any(|(field, kind)| *field == name && matches!(kind, Kind::Map));
    if let Json::Object(entries) = &mut value
        && is_map
    {
        entries.sort_keys();
    }
    value
}

/// Whether protobuf leaves the value out.
fn is_empty(name: &str, value: &Json) -> bool {
    let kind = FIELDS.iter().find(|(field, _)| *field == name);
    match kind.map(|(_, kind)| kind) {
        Some(Kind::Text) => value == "",
        Some(Kind::Number) => value == 0,
        Some(Kind::OneOf(values)) => value == values[0],
        Some(Kind::Strings) => value.as_array().is_some_and(Vec::is_empty),
        Some(Kind::Map) => value.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The value of a field as protobuf writes it, or what is allowed.
fn checked(kind: Kind, value: &Json) -> Result<Json, String> {
    let is = |right: bool, allowed: &str| {
        if right {
            Ok(value.clone())
        } else {
            Err(format!("{allowed} is needed"))
        }
    };
    match kind {
        Kind::Text => is(value.is_string(), "a string"),
        Kind::Number | Kind::OptionalNumber => match number(value) {
            Some(number) => Ok(number.into()),
            None => Err("a number from -2147483648 to 2147483647 is needed".to_owned()),
        },
        Kind::OptionalBool => is(value.is_boolean(), "true or false"),
        Kind::Duration => {
            let duration = value.as_str().and_then(text::protobuf_duration);
            is(duration.is_some(), "a number of seconds such as 45s")
        }
        Kind::OneOf(values) => one_of(values, value),
        Kind::Strings => {
            let strings = value.as_array();
            is(
                strings.is_some_and(|list| list.iter().all(Json::is_string)),
                "a list of strings",
            )
        }
        Kind::Message => is(value.is_object(), "an object"),
        Kind::Map => {
            let values = value.as_object();
            is(
                values.is_some_and(|map| map.values().all(Json::is_string)),
                "a map of strings",
            )
        }
    }
}

/// A number, which protobuf also reads from a string.
fn number(value: &Json) -> Option<i32> {
    match value {
        Json::String(text) => text.parse().ok(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole numbers in range only"
        )]
        Json::Number(number) => number
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() < 2_147_483_648.0)
            .map(|float| float as i32),
        _ => None,
    }
}

fn one_of(values: &[&str], value: &Json) -> Result<Json, String> {
    let by_number = value.as_u64().and_then(|index| usize::try_from(index).ok());
    let by_number = by_number.and_then(|index| values.get(index));
    match by_number {
        Some(name) => Ok(json!(name)),
        None if values.iter().any(|allowed| value == allowed) => Ok(value.clone()),
        None => Err(format!("one of {} is needed", values.join(", "))),
    }
}

/// What Istio checks besides types (`ValidateMeshConfigProxyConfig`).
fn check_value(name: &str, value: &Json) -> Result<(), String> {
    match name {
        "configPath" | "binaryPath" | "serviceCluster" if value == "" => {
            Err("it must not be empty".to_owned())
        }
        "drainDuration" => {
            let duration = value.as_str().and_then(text::protobuf_duration);
            match duration {
                Some(duration) if duration.as_secs() > 0 && duration.subsec_nanos() == 0 => Ok(()),
                _ => Err("whole seconds, at least one, are needed".to_owned()),
            }
        }
        "discoveryAddress" | "zipkinAddress" | "statsdUdpAddress" if value != "" => {
            address(value.as_str().unwrap_or_default())
        }
        "proxyAdminPort" | "statusPort" => port(value.as_i64().unwrap_or(-1)),
        "statNameLength" if value.as_i64().is_some_and(|length| length < 0) => {
            Err("a number that is not negative is needed".to_owned())
        }
        _ => Ok(()),
    }
}

fn port(port: i64) -> Result<(), String> {
    match port {
        0..=65535 => Ok(()),
        _ => Err("a port from 0 to 65535 is needed".to_owned()),
    }
}

fn address(address: &str) -> Result<(), String> {
    let (host, number) = address.rsplit_once(':').unwrap_or((address, ""));
    let valid = number.parse::<u16>().is_ok_and(|port| port > 0) && !host.is_empty();
    valid
        .then_some(())
        .ok_or_else(|| "an address such as istiod.istio-system.svc:15012 is needed".to_owned())
}

/// The name of a field in JSON, from one that may have underscores.
pub(super) fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &names::capitalised(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(yaml: &str) -> Result<ProxyConfig, String> {
        Ok(ProxyConfig::defaults().with(&Change::parse(yaml)?))
    }

    #[test]
    fn json_has_only_what_is_not_default() {
        for (yaml, expected) in [
            ("", "{}"),
            ("drainDuration: 45s\nstatusPort: 15020", "{}"),
            ("interceptionMode: REDIRECT\nmeshId: ''", "{}"),
            ("concurrency: 0", r#"{"concurrency":0}"#),
            (
                "holdApplicationUntilProxyStarts: false",
                r#"{"holdApplicationUntilProxyStarts":false}"#,
            ),
            (
                "tracing: {}\ninterceptionMode: 1",
                r#"{"interceptionMode":"TPROXY","tracing":{}}"#,
            ),
            (
                "mesh_id: x\ndrain_duration: 5s",
                r#"{"drainDuration":"5s","meshId":"x"}"#,
            ),
            (
                "newField: 1\nproxyMetadata: {B: b, A: b}",
                r#"{"proxyMetadata":{"A":"b","B":"b"},"newField":1}"#,
            ),
        ] {
            assert_eq!(changed(yaml).unwrap().to_json(), expected, "{yaml}");
        }
    }

    #[test]
    fn metadata_is_merged_and_other_fields_are_replaced() {
        let config = changed("proxyMetadata: {A: a, B: b}\nimage: {imageType: debug}").unwrap();
        let config = config.with(&Change::parse("proxyMetadata: {B: c}\nimage: {}").unwrap());
        let expected = r#"{"proxyMetadata":{"A":"a","B":"c"},"image":{}}"#;
        assert_eq!(config.to_json(), expected);
        assert_eq!(config.image_type(), "");
    }

    #[test]
    fn old_releases_traced_to_zipkin_by_default() {
        let old = ProxyConfig::defaults_with_zipkin();
        assert_eq!(old.to_json(), "{}");
        let off = old.with(&Change::parse("tracing: {}").unwrap());
        assert_eq!(off.to_json(), r#"{"tracing":{}}"#);
    }

    #[test]
    fn wrong_values_are_named() {
        for (yaml, parts) in [
            ("- a", "object"),
            ("drainDuration: 1m", "drainDuration seconds"),
            ("drainDuration: 0.5s", "drainDuration whole"),
            ("interceptionMode: X", "interceptionMode REDIRECT"),
            ("concurrency: x", "concurrency number"),
            ("statusPort: 70000", "statusPort 65535"),
            ("discoveryAddress: x", "discoveryAddress address"),
            ("proxyMetadata: {A: 1}", "proxyMetadata strings"),
            ("a: [", "line"),
        ] {
            let problem = changed(yaml).unwrap_err();
            let found = parts.split(' ').all(|part| problem.contains(part));
            assert!(found, "{yaml}: {problem}");
        }
    }

    #[test]
    fn templates_see_fields_and_getters() {
        let config = changed("holdApplicationUntilProxyStarts: true\ntracing: {tlsSettings: {}}");
        let value = config.unwrap().for_templates();
        let hold = value.field("HoldApplicationUntilProxyStarts").unwrap();
        assert_eq!(hold.field("GetValue"), Some(&Value::Bool(true)));
        let tracing = value.field("GetTracing").unwrap();
        assert!(tracing.field("GetTlsSettings").is_some());
        let mode = value.field("InterceptionMode").unwrap();
        assert_eq!(
            mode.field("String"),
            Some(&Value::String("REDIRECT".into()))
        );
    }
}
