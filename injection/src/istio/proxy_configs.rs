//! Istio's resources of kind `ProxyConfig`: for all namespaces, for one, or for some pods of one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::proxy_config::{Change, check_entries};
use crate::pod;

/// The label of a resource that is for the control planes of one revision only.
const REVISION: &str = "istio.io/rev";

/// The fields of a resource, and of the mesh configuration's `defaultConfig` that they change.
const FIELDS: [(&str, &str); 3] = [
    ("concurrency", "concurrency"),
    ("environmentVariables", "proxyMetadata"),
    ("image", "image"),
];

/// The resources of a cluster, by namespace, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfigs(BTreeMap<String, Vec<Resource>>);

#[derive(Clone, Debug)]
struct Resource {
    /// The labels of the pods that it is for; `None` for all pods.
    selector: Option<BTreeMap<String, String>>,
    change: Change,
}

/// An object, as far as it is used.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    creation_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
}

impl ProxyConfigs {
    /// Parses the objects that are for the control plane of this revision; "" is the default one. What
    /// cannot be used is left out, with a warning.
    #[must_use]
    pub fn parse(objects: &[Value], revision: &str) -> (Self, Vec<String>) {
        let mut parsed = Vec::new();
        let mut warnings = Vec::new();
        for object in objects {
            match parse(object) {
                Ok(resource) => parsed.push(resource),
                Err(problem) => warnings.push(format!("{} is ignored: {problem}", title(object))),
            }
        }
        parsed.retain(|(metadata, _)| metadata.is_for(revision));
        parsed.sort_by(|(one, _), (other, _)| one.order().cmp(&other.order()));
        let mut configs = Self::default();
        for (metadata, resource) in parsed {
            let resources = configs.0.entry(metadata.namespace).or_default();
            resources.push(resource);
        }
        (configs, warnings)
    }

    /// What changes the configuration of all proxies in `namespace`.
    pub(super) fn of_namespace(&self, namespace: &str) -> Option<&Change> {
        let mut resources = self.0.get(namespace)?.iter();
        let found = resources.find(|resource| resource.selector.is_none());
        found.map(|resource| &resource.change)
    }

    /// What changes the configuration of the proxies of some pods in `namespace`, if `pod` is one.
    pub(super) fn of_pod(&self, pod: &Value, namespace: &str) -> Option<&Change> {
        let mut resources = self.0.get(namespace)?.iter();
        let labels = pod::strings(&pod["metadata"]["labels"]);
        let found = resources.find(|resource| resource.selects(&labels));
        found.map(|resource| &resource.change)
    }
}

impl Metadata {
    /// The oldest is the first. Kubernetes writes all timestamps in UTC, so texts are compared.
    fn order(&self) -> (Option<&str>, &str) {
        (self.creation_timestamp.as_deref(), &self.name)
    }

    fn is_for(&self, revision: &str) -> bool {
        let revision = if revision.is_empty() {
            "default"
        } else {
            revision
        };
        let labels = self.labels.as_ref();
        labels
            .and_then(|labels| labels.get(REVISION))
            .is_none_or(|own| own == revision)
    }
}

impl Resource {
    /// A selector without labels selects nothing.
    fn selects(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key.as_str()) == Some(&&**value);
        self.selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty() && selector.iter().all(has))
    }
}

fn parse(object: &Value) -> Result<(Metadata, Resource), String> {
    let Object { metadata, spec } =
        Object::deserialize(object).map_err(|error| error.to_string())?;
    let selector = Option::<Selector>::deserialize(&spec["selector"])
        .map_err(|error| format!("selector: {error}"))?;
    let resource = Resource {
        selector: selector.map(|selector| selector.match_labels),
        change: change(&spec)?,
    };
    Ok((metadata, resource))
}

fn change(spec: &Value) -> Result<Change, String> {
    let mut change = Change::default();
    for (name, field) in FIELDS {
        let value = &spec[name];
        change
            .set(field, value)
            .map_err(|problem| format!("{name} {value}: {problem}"))?;
        check_entries(value).map_err(|problem| format!("{name} {problem}"))?;
    }
    Ok(change)
}

fn title(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("ProxyConfig {}/{}", text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, created: &str, spec: &Value) -> Value {
        let metadata = json!({"namespace": "shop", "name": name, "creationTimestamp": created});
        json!({"metadata": metadata, "spec": spec})
    }

    /// The number in what changes the proxies of `shop`.
    fn concurrency(configs: &ProxyConfigs) -> Option<Change> {
        configs.of_namespace("shop").cloned()
    }

    fn number(number: u32) -> Option<Change> {
        Change::of(&json!({"concurrency": number})).ok()
    }

    #[test]
    fn the_oldest_of_a_namespace_counts() {
        let spec = |number: u32| json!({"concurrency": number});
        let [old, new] = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"];
        let objects = [
            object("a", new, &spec(1)),
            object("c", old, &spec(2)),
            object("b", old, &spec(3)),
        ];
        let (configs, warnings) = ProxyConfigs::parse(&objects, "");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(concurrency(&configs), number(3));
        assert_eq!(configs.of_namespace("other"), None);
    }

    #[test]
    fn a_selector_requires_all_of_its_labels() {
        let spec = |labels: Value| json!({"selector": {"matchLabels": labels}, "concurrency": 1});
        let objects = [
            object("none", "1", &spec(json!({}))),
            object("missing", "2", &json!({"selector": {}, "concurrency": 2})),
            object("two", "3", &spec(json!({"a": "1", "b": "2"}))),
        ];
        let (configs, _) = ProxyConfigs::parse(&objects, "");
        let of = |labels: Value| {
            let pod = json!({"metadata": {"labels": labels}});
            configs.of_pod(&pod, "shop").cloned()
        };
        assert_eq!(of(json!({"a": "1"})), None);
        assert_eq!(of(json!({"a": "1", "b": "2", "c": "3"})), number(1));
        assert_eq!(of(json!({"a": "1", "b": "3"})), None);
        // Those with a selector are not for the whole namespace.
        assert_eq!(concurrency(&configs), None);
    }

    #[test]
    fn a_resource_may_be_for_one_revision() {
        let with_label = |name: &str, number: u32, revision: &str| {
            let mut object = object(name, name, &json!({"concurrency": number}));
            object["metadata"]["labels"] = json!({REVISION: revision});
            object
        };
        let objects = [
            with_label("1", 1, "canary"),
            with_label("2", 2, "default"),
            object("3", "3", &json!({"concurrency": 3})),
        ];
        for (revision, expected) in [("canary", 1), ("", 2), ("default", 2), ("other", 3)] {
            let (configs, _) = ProxyConfigs::parse(&objects, revision);
            assert_eq!(concurrency(&configs), number(expected), "{revision}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let variables = |value: &str| json!({"environmentVariables": {"A": value}});
        let objects = [
            object("number", "1", &json!({"concurrency": "x"})),
            object("labels", "1", &json!({"selector": 1})),
            object("lines", "1", &variables("a\nb")),
            object("image", "1", &json!({"image": {"imageType": "a\nb"}})),
            object("good", "1", &variables("b")),
            json!({"metadata": {"name": "nameless"}}),
        ];
        let (configs, warnings) = ProxyConfigs::parse(&objects, "");
        let expected = [
            "ProxyConfig shop/number is ignored: concurrency \"x\": a number",
            "ProxyConfig shop/labels is ignored: selector: ",
            "ProxyConfig shop/lines is ignored: environmentVariables \"A\": control characters",
            "ProxyConfig shop/image is ignored: image \"imageType\": control characters",
            "ProxyConfig /nameless is ignored: missing field `namespace`",
        ];
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
        }
        let change = Change::of(&json!({"proxyMetadata": {"A": "b"}})).ok();
        assert_eq!(concurrency(&configs), change);
    }
}
