//! Istio's mesh configuration, over the defaults that istiod has built in.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use gotmpl::Value;
use serde_json::{Map, Value as Json, json};

use super::{
    containers, names,
    proxy_config::{ProxyConfig, camel_case},
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
                    let changed = proxy.with(&value);
                    proxy = changed.map_err(|problem| format!("defaultConfig: {problem}"))?;
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

    /// The configuration of this pod's proxy.
    pub(super) fn proxy_config_of(&self, pod: &Json) -> Result<Cow<'_, ProxyConfig>, Problem> {
        let Some(change) = containers::annotation(pod, PROXY_CONFIG) else {
            return Ok(Cow::Borrowed(&self.proxy));
        };
        let changed = self.proxy.with_yaml(change);
        changed
            .map(Cow::Owned)
            .map_err(|problem| Problem::Annotation {
                name: PROXY_CONFIG.to_owned(),
                value: change.to_owned(),
                problem,
            })
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
        let changed = pod("holdApplicationUntilProxyStarts: true");
        assert!(mesh.proxy_config_of(&changed).unwrap().holds_application());
        assert!(
            !mesh
                .proxy_config_of(&json!({}))
                .unwrap()
                .holds_application()
        );
        let problem = mesh.proxy_config_of(&pod("statusPort: x")).unwrap_err();
        assert!(
            problem.to_string().contains("proxy.istio.io/config"),
            "{problem}"
        );
    }
}
