//! Istio's mesh configuration, over the defaults that istiod has built in.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use gotmpl::Value;
use serde_json::{Map, Value as Json, json};

use super::{
    containers, names,
    proxy_config::{Change, ProxyConfig, camel_case},
    proxy_configs::ProxyConfigs,
    yaml,
};
use crate::refusal::Problem;

/// The annotation with which a pod changes the `ProxyConfig`.
pub(super) const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The mesh configuration.
#[derive(Debug)]
pub(super) struct Mesh {
    config: Map<String, Json>,
    /// The configuration of proxies.
    pub(super) proxy: ProxyConfig,
    /// The struct that templates see.
    pub(super) for_templates: Value,
}

impl Mesh {
    /// The key `mesh` of the `ConfigMap` `istio`, over the defaults.
    pub(super) fn parse(text: &str, mut proxy: ProxyConfig) -> Result<Self, String> {
        let mut config = defaults();
        let change = match yaml::read(text)? {
            Json::Null => Map::new(),
            Json::Object(change) => change,
            other => return Err(format!("a mesh configuration is an object, not {other}")),
        };
        for (name, value) in change {
            match (camel_case(&name).as_str(), value) {
                (_, Json::Null) => {}
                ("defaultConfig", value) => {
                    let change = Change::of(&value);
                    let change = change.map_err(|problem| format!("defaultConfig: {problem}"))?;
                    proxy = proxy.with(&change);
                }
                ("extensionProviders", Json::Array(providers)) => {
                    add_providers(&mut config, providers);
                }
                ("trustDomainAliases", Json::Array(aliases)) => add_aliases(&mut config, aliases),
                (name, value) => {
                    config.insert(name.to_owned(), value);
                }
            }
        }
        let for_templates = for_templates(&config, &proxy);
        Ok(Self {
            config,
            proxy,
            for_templates,
        })
    }

    /// The configuration of the proxy of a pod in `namespace`. Each of these changes the result of those
    /// before it: the mesh configuration, a resource of the root namespace, one of the pod's namespace,
    /// the pod's annotation, a resource that selects the pod.
    pub(super) fn proxy_config_of(
        &self,
        pod: &Json,
        namespace: &str,
        resources: &ProxyConfigs,
    ) -> Result<Cow<'_, ProxyConfig>, Problem> {
        let root = self.root_namespace();
        let of_namespace = || resources.of_namespace(namespace);
        let annotation = annotation(pod)?;
        let changes = [
            resources.of_namespace(root),
            (namespace != root).then(of_namespace).flatten(),
            annotation.as_ref(),
            resources.of_pod(pod, namespace),
        ];
        let mut config = Cow::Borrowed(&self.proxy);
        for change in changes.into_iter().flatten() {
            config = Cow::Owned(config.with(change));
        }
        Ok(config)
    }

    /// The namespace whose resources are for all.
    fn root_namespace(&self) -> &str {
        let root = self.config.get("rootNamespace").and_then(Json::as_str);
        root.unwrap_or_default()
    }

    /// Whether the proxy serves the application's metrics with its own.
    pub(super) fn merges_metrics(&self) -> bool {
        self.config.get("enablePrometheusMerge") != Some(&Json::Bool(false))
    }

    /// `localhost` or `passthrough`.
    pub(super) fn inbound_traffic_policy_mode(&self) -> &'static str {
        let policy = self.config.get("inboundTrafficPolicy");
        match policy.map(|policy| &policy["mode"]) {
            Some(mode) if mode == "LOCALHOST" || mode == 1 => "localhost",
            _ => "passthrough",
        }
    }
}

/// The change that the pod's annotation makes.
fn annotation(pod: &Json) -> Result<Option<Change>, Problem> {
    let Some(value) = containers::annotation(pod, PROXY_CONFIG) else {
        return Ok(None);
    };
    let change = Change::parse(value).map_err(|problem| Problem::Annotation {
        name: PROXY_CONFIG.to_owned(),
        value: value.to_owned(),
        problem,
    })?;
    Ok(Some(change))
}

/// What istiod has built in, as far as templates can ask for it.
fn defaults() -> Map<String, Json> {
    let defaults = json!({
        "enableTracing": true,
        "ingressService": "istio-ingressgateway",
        "ingressClass": "istio",
        "trustDomain": "cluster.local",
        "trustDomainAliases": [],
        "enableAutoMtls": true,
        "outboundTrafficPolicy": {"mode": "ALLOW_ANY"},
        "inboundTrafficPolicy": {"mode": "PASSTHROUGH"},
        "rootNamespace": "istio-system",
        "proxyListenPort": 15001,
        "proxyInboundListenPort": 15006,
        "connectTimeout": "10s",
        "dnsRefreshRate": "60s",
        "enablePrometheusMerge": true,
        "extensionProviders": [
            {"name": "prometheus", "prometheus": {}},
            {"name": "stackdriver", "stackdriver": {}},
            {"name": "envoy", "envoyFileAccessLog": {"path": "/dev/stdout"}},
        ],
    });
    defaults.as_object().cloned().unwrap_or_default()
}

/// Providers of known names are replaced, others are added.
fn add_providers(config: &mut Map<String, Json>, providers: Vec<Json>) {
    let Some(known) = config
        .get_mut("extensionProviders")
        .and_then(Json::as_array_mut)
    else {
        return;
    };
    for provider in providers {
        match known
            .iter_mut()
            .find(|known| known["name"] == provider["name"])
        {
            Some(known) => *known = provider,
            None => known.push(provider),
        }
    }
}

fn add_aliases(config: &mut Map<String, Json>, aliases: Vec<Json>) {
    let texts = aliases
        .into_iter()
        .filter_map(|alias| alias.as_str().map(str::to_owned));
    let sorted: BTreeSet<String> = texts.collect();
    config.insert("trustDomainAliases".to_owned(), json!(sorted));
}

fn for_templates(config: &Map<String, Json>, proxy: &ProxyConfig) -> Value {
    let fields = names::with_getters(Value::Map(Arc::new(names::structure(config))));
    let Value::Map(fields) = fields else {
        return fields;
    };
    let mut fields = Arc::unwrap_or_clone(fields);
    let proxy = proxy.for_templates();
    fields.insert("GetDefaultConfig".into(), proxy.clone());
    fields.insert("DefaultConfig".into(), proxy);
    Value::Map(Arc::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_over_the_defaults() {
        let mesh = Mesh::parse(
            "trust_domain: x\nenablePrometheusMerge: false\ndefaultConfig: {statusPort: 1}\n\
             inboundTrafficPolicy: {mode: LOCALHOST}\nrootNamespace: null\n\
             extensionProviders: [{name: envoy, x: {}}, {name: y}]\ntrustDomainAliases: [b, a]",
            ProxyConfig::defaults(),
        )
        .unwrap();
        assert!(!mesh.merges_metrics());
        assert_eq!(mesh.inbound_traffic_policy_mode(), "localhost");
        assert_eq!(mesh.proxy.status_port(), 1);
        let text = |name| mesh.for_templates.field(name).map(ToString::to_string);
        assert_eq!(text("TrustDomain").as_deref(), Some("x"));
        assert_eq!(text("GetRootNamespace").as_deref(), Some("istio-system"));
        assert_eq!(text("TrustDomainAliases").as_deref(), Some("[a b]"));
        assert_eq!(
            mesh.for_templates
                .field("ExtensionProviders")
                .unwrap()
                .len(),
            Some(4)
        );
    }

    #[test]
    fn a_wrong_configuration_is_an_error() {
        for text in ["[]", "defaultConfig: {statusPort: -1}", "a: b: c"] {
            assert!(
                Mesh::parse(text, ProxyConfig::defaults()).is_err(),
                "{text}"
            );
        }
        assert!(
            Mesh::parse("", ProxyConfig::defaults())
                .unwrap()
                .merges_metrics()
        );
    }

    #[test]
    fn a_pod_changes_the_configuration_of_its_proxy() {
        let mesh = Mesh::parse("", ProxyConfig::defaults()).unwrap();
        let pod = |config: &str| json!({"metadata": {"annotations": {PROXY_CONFIG: config}}});
        let of = |pod: &Json| mesh.proxy_config_of(pod, "shop", &ProxyConfigs::default());
        let changed = pod("holdApplicationUntilProxyStarts: true");
        assert!(of(&changed).unwrap().holds_application());
        assert!(!of(&json!({})).unwrap().holds_application());
        let problem = of(&pod("statusPort: x")).unwrap_err();
        assert!(
            problem.to_string().contains("proxy.istio.io/config"),
            "{problem}"
        );
    }

    const MESH: &str =
        "rootNamespace: root\ndefaultConfig: {concurrency: 1, proxyMetadata: {M: mesh}}";

    /// A resource of this namespace, created in this second.
    fn resource(namespace: &str, second: u32, spec: &Json) -> Json {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let name = format!("from-{second}");
        let metadata = json!({"namespace": namespace, "name": name, "creationTimestamp": created});
        json!({"metadata": metadata, "spec": spec})
    }

    /// The JSON of the configuration for a pod in `shop` with the label `app: web`.
    fn effective(mesh: &str, resources: &[Json], annotation: Option<&str>) -> Json {
        let mesh = Mesh::parse(mesh, ProxyConfig::defaults()).unwrap();
        let (resources, warnings) = ProxyConfigs::parse(resources, "");
        assert!(warnings.is_empty(), "{warnings:?}");
        let mut pod = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        if let Some(annotation) = annotation {
            pod["metadata"]["annotations"] = json!({PROXY_CONFIG: annotation});
        }
        let config = mesh.proxy_config_of(&pod, "shop", &resources).unwrap();
        serde_json::from_str(&config.to_json()).unwrap()
    }

    /// The spec of a resource for the pods of `app: web`.
    fn for_web(mut spec: Json) -> Json {
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        spec
    }

    /// Its name, the mesh configuration, resources, the annotation, and the result.
    type Case = (
        &'static str,
        &'static str,
        Vec<Json>,
        Option<&'static str>,
        Json,
    );

    /// What `TestEffectiveProxyConfig` of Istio requires.
    #[test]
    fn resources_take_precedence_as_in_istio() {
        let concurrency = |number: u32| json!({"concurrency": number});
        let variable = |name: &str| json!({"environmentVariables": {name: "x"}});
        let debug = json!({"concurrency": 3, "image": {"imageType": "debug"}});
        let of_mesh = "defaultConfig: {concurrency: 2}";
        let cases: [Case; 9] = [
            ("nothing is configured", "", vec![], None, json!({})),
            (
                "all fields of a resource of the namespace apply",
                "",
                vec![resource("shop", 1, &debug)],
                None,
                debug.clone(),
            ),
            (
                "the root namespace over the mesh configuration",
                of_mesh,
                vec![resource("istio-system", 1, &concurrency(3))],
                None,
                concurrency(3),
            ),
            (
                "a selector over the namespace, whichever is older",
                "",
                vec![
                    resource("shop", 2, &for_web(concurrency(3))),
                    resource("shop", 1, &concurrency(2)),
                ],
                None,
                concurrency(3),
            ),
            (
                "a selector over the annotation",
                "",
                vec![resource("shop", 1, &for_web(debug.clone()))],
                Some(r#"{"concurrency": 5}"#),
                debug.clone(),
            ),
            (
                "the annotation over the namespace",
                "",
                vec![resource("shop", 1, &debug)],
                Some("concurrency: 5"),
                json!({"concurrency": 5, "image": {"imageType": "debug"}}),
            ),
            (
                "none of another namespace",
                "",
                vec![
                    resource("other", 1, &concurrency(1)),
                    resource("other", 1, &for_web(concurrency(2))),
                    resource("istio-system", 1, &concurrency(3)),
                ],
                None,
                concurrency(3),
            ),
            (
                "the oldest of those that select the pod, alone",
                "",
                vec![
                    resource("shop", 3, &for_web(variable("C"))),
                    resource("shop", 1, &for_web(variable("A"))),
                    resource("shop", 2, &for_web(variable("B"))),
                ],
                None,
                json!({"proxyMetadata": {"A": "x"}}),
            ),
            (
                "the oldest of those for the namespace, alone",
                "",
                vec![
                    resource("shop", 2, &variable("B")),
                    resource("shop", 1, &variable("A")),
                ],
                None,
                json!({"proxyMetadata": {"A": "x"}}),
            ),
        ];
        for (case, mesh, resources, annotation, expected) in cases {
            assert_eq!(effective(mesh, &resources, annotation), expected, "{case}");
        }
    }

    /// What `TestMergeWithPrecedence` of Istio requires, for the fields that a resource has.
    #[test]
    fn fields_are_replaced_and_variables_are_merged() {
        let variables = |variables: Json| json!({"environmentVariables": variables});
        for (mesh, spec, expected) in [
            (
                "concurrency: 2",
                json!({"concurrency": 1}),
                json!({"concurrency": 1}),
            ),
            (
                "concurrency: 2",
                json!({"concurrency": 0}),
                json!({"concurrency": 0}),
            ),
            (
                "concurrency: 2",
                json!({"concurrency": null}),
                json!({"concurrency": 2}),
            ),
            ("concurrency: 2", json!({}), json!({"concurrency": 2})),
            ("", json!({"concurrency": 2}), json!({"concurrency": 2})),
            (
                "proxyMetadata: {a: z, b: v, c: d}",
                variables(json!({"a": "x", "b": "v"})),
                json!({"proxyMetadata": {"a": "x", "b": "v", "c": "d"}}),
            ),
            (
                "proxyMetadata: {a: z}",
                variables(json!({})),
                json!({"proxyMetadata": {"a": "z"}}),
            ),
            (
                "proxyMetadata: {a: z}",
                Json::Null,
                json!({"proxyMetadata": {"a": "z"}}),
            ),
            (
                "image: {imageType: debug}",
                json!({"image": {}}),
                json!({"image": {}}),
            ),
            (
                "terminationDrainDuration: 0.5s, tracing: {}",
                json!({}),
                json!({"terminationDrainDuration": "0.5s", "tracing": {}}),
            ),
        ] {
            let mesh = format!("defaultConfig: {{{mesh}}}");
            let resources = [resource("shop", 1, &spec)];
            assert_eq!(
                effective(&mesh, &resources, None),
                expected,
                "{mesh} {spec}"
            );
        }
    }

    #[test]
    fn variables_of_all_levels_are_merged() {
        let variables = |level: &str| json!({"environmentVariables": {"ALL": level, level: level}});
        let resources = [
            resource("root", 1, &variables("root")),
            resource("istio-system", 1, &variables("wrong")),
            resource("shop", 1, &variables("namespace")),
            resource("shop", 1, &for_web(variables("selector"))),
        ];
        let annotation = "proxyMetadata: {ALL: annotation, annotation: annotation}";
        let config = effective(MESH, &resources, Some(annotation));
        let expected = json!({
            "ALL": "selector",
            "M": "mesh",
            "root": "root",
            "namespace": "namespace",
            "annotation": "annotation",
            "selector": "selector",
        });
        assert_eq!(config["proxyMetadata"], expected);
        assert_eq!(config["concurrency"], 1);
    }

    #[test]
    fn resources_of_the_root_namespace_apply_there_once() {
        let mesh = Mesh::parse(MESH, ProxyConfig::defaults()).unwrap();
        let spec = json!({"concurrency": 3});
        let selecting = for_web(json!({"image": {"imageType": "debug"}}));
        let objects = [resource("root", 1, &spec), resource("root", 1, &selecting)];
        let (resources, _) = ProxyConfigs::parse(&objects, "");
        let pod = json!({"metadata": {"labels": {"app": "web"}}});
        for (namespace, image_type) in [("root", "debug"), ("shop", "")] {
            let config = mesh.proxy_config_of(&pod, namespace, &resources).unwrap();
            // A selector of the root namespace is for its own pods only.
            assert_eq!(config.image_type(), image_type, "{namespace}");
            assert!(
                config.to_json().contains("\"concurrency\":3"),
                "{namespace}"
            );
        }
    }
}
