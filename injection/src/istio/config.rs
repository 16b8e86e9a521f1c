//! The configuration of injection: Istio's `ConfigMaps`, read once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    engine::Template,
    functions,
    memo::{Memo, MemoCounts},
    mesh::Mesh,
    names,
    proxy_config::ProxyConfig,
    yaml,
};

/// The template of a configuration that names none.
const SIDECAR: &str = "sidecar";

/// Checks the value of an annotation about interception, by the annotation's name. The agent has the
/// table. Unknown names are `Ok`.
pub type AnnotationCheck = fn(name: &str, value: &str) -> Result<(), String>;

/// The texts of Istio's `ConfigMaps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Key `config` of `istio-sidecar-injector`, or only a template.
    pub inject: &'a str,
    /// Key `values` of `istio-sidecar-injector`.
    pub values: &'a str,
    /// Key `mesh` of `istio`.
    pub mesh: &'a str,
}

/// Who redirects the traffic of injected pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interception {
    /// As Istio is configured.
    #[default]
    Keep,
    /// The agent: pods have the annotations for it, and no init container.
    Agent,
    /// The init container `istio-init`.
    IstioInit,
}

/// What is not in Istio's `ConfigMaps`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The revision of the control plane; "" is the default one.
    pub revision: String,
    /// Whether the proxy is an init container that keeps running.
    pub native_sidecar: bool,
    /// Who redirects traffic.
    pub interception: Interception,
    /// With [`Interception::Agent`]: whether the init container `istio-validation` stays.
    pub keep_validation: bool,
    /// Checks the annotations about interception.
    pub check: AnnotationCheck,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            revision: String::new(),
            native_sidecar: true,
            interception: Interception::default(),
            keep_validation: false,
            check: |_, _| Ok(()),
        }
    }
}

/// A source that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A text is not what it has to be.
    #[error("the {source_name} cannot be read: {problem}")]
    Source {
        /// Which text.
        source_name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A template cannot be used.
    #[error("template {name} cannot be used: {problem}")]
    Template {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The configuration of injection with Istio's templates.
#[derive(Debug)]
pub struct Config {
    /// Which pods are injected that say nothing: `enabled` or `disabled`.
    pub policy: String,
    /// Labels of pods that are not injected unless they ask for it: a list of selectors.
    pub never_inject_selector: Json,
    /// Labels of pods that are injected unless they decline: a list of selectors.
    pub always_inject_selector: Json,
    pub(super) default_templates: Vec<String>,
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    pub(super) injected_annotations: BTreeMap<String, String>,
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) values: Json,
    pub(super) values_for_templates: gotmpl::Value,
    pub(super) mesh: Mesh,
    pub(super) options: Options,
    pub(super) memo: Memo,
}

/// The key `config` of Istio's `ConfigMap`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Inject {
    policy: Option<String>,
    default_templates: Option<Vec<String>>,
    templates: Option<BTreeMap<String, String>>,
    aliases: Option<BTreeMap<String, Vec<String>>>,
    never_inject_selector: Json,
    always_inject_selector: Json,
    injected_annotations: Option<BTreeMap<String, String>>,
}

impl Inject {
    /// Without templates, the text is a template itself.
    fn parse(text: &str) -> Self {
        let config: Option<Self> = serde_saphyr::from_str(text).ok();
        let config = config.filter(|config| {
            let templates = config.templates.as_ref();
            templates.is_some_and(|templates| !templates.is_empty())
        });
        config.unwrap_or_else(|| Self {
            templates: Some(BTreeMap::from([(SIDECAR.to_owned(), text.to_owned())])),
            ..Self::default()
        })
    }
}

impl Config {
    /// Reads the sources and parses all templates.
    pub fn load(sources: &Sources<'_>, options: Options) -> Result<Self, ConfigError> {
        let inject = Inject::parse(sources.inject);
        let raw_templates = inject.templates.unwrap_or_default();
        let source = |source_name| {
            move |problem| ConfigError::Source {
                source_name,
                problem,
            }
        };
        let mut values = yaml::read(sources.values).map_err(source("values"))?;
        let defaults = proxy_defaults(&values, &raw_templates);
        let mesh = Mesh::parse(sources.mesh, defaults).map_err(source("mesh configuration"))?;
        if !values.is_object() {
            let problem = "they are not an object".to_owned();
            return Err(source("values")(problem));
        }
        choose_interception(&mut values, options.interception);
        Ok(Self {
            policy: inject.policy.unwrap_or_else(|| "enabled".to_owned()),
            never_inject_selector: inject.never_inject_selector,
            always_inject_selector: inject.always_inject_selector,
            default_templates: inject
                .default_templates
                .filter(|templates| !templates.is_empty())
                .unwrap_or_else(|| vec![SIDECAR.to_owned()]),
            aliases: inject.aliases.unwrap_or_default(),
            injected_annotations: inject.injected_annotations.unwrap_or_default(),
            templates: parse_templates(&raw_templates, options.native_sidecar)?,
            values_for_templates: names::any(&values),
            values,
            mesh,
            options,
            memo: Memo::new(),
        })
    }

    /// How often a rendered template was found in this configuration's memo.
    pub fn memo_counts(&self) -> MemoCounts {
        self.memo.counts()
    }

    /// Whether the values let applications wait for the proxy.
    pub(super) fn holds_application(&self) -> bool {
        self.values["global"]["proxy"]["holdApplicationUntilProxyStarts"] == true
    }

    /// Whether the values let probes be rewritten.
    pub(super) fn rewrites_probes(&self) -> bool {
        self.values["sidecarInjectorWebhook"]["rewriteAppHTTPProbe"] == true
    }
}

fn parse_templates(
    texts: &BTreeMap<String, String>,
    native_sidecar: bool,
) -> Result<BTreeMap<String, Template>, ConfigError> {
    let functions = functions::table(native_sidecar);
    texts
        .iter()
        .map(|(name, text)| {
            let template = Template::parse(text, &functions);
            let template = template.map_err(|problem| ConfigError::Template {
                name: name.clone(),
                problem,
            })?;
            Ok((name.clone(), template))
        })
        .collect()
}

/// Up to Istio 1.21, tracing had a default. Those releases have `istio_cni` in their values, and their
/// templates do not know `pilot.cni`, as later ones do.
fn proxy_defaults(values: &Json, templates: &BTreeMap<String, String>) -> ProxyConfig {
    let is_old = values.get("istio_cni").is_some()
        && templates
            .values()
            .all(|template| !template.contains(".Values.pilot.cni"));
    if is_old {
        ProxyConfig::defaults_with_zipkin()
    } else {
        ProxyConfig::defaults()
    }
}

/// Sets the values by which templates choose between istio-init and annotations. Up to Istio 1.23,
/// they are in `istio_cni`.
fn choose_interception(values: &mut Json, interception: Interception) {
    let change = match interception {
        Interception::Keep => return,
        // Without a network of Multus: the agent needs none.
        Interception::Agent => json!({"enabled": true, "provider": "default", "chained": true}),
        Interception::IstioInit => json!({"enabled": false}),
    };
    if !values["pilot"].is_object() {
        values["pilot"] = json!({});
    }
    for parent in ["/istio_cni", "/pilot/cni"] {
        let (parent, key) = parent.rsplit_once('/').unwrap_or_default();
        if let Some(Json::Object(parent)) = values.pointer_mut(parent) {
            let settings = parent.entry(key).or_insert_with(|| json!({}));
            if !settings.is_object() {
                *settings = json!({});
            }
            for (name, value) in change.as_object().into_iter().flatten() {
                settings[name] = value.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(inject: &str, values: &str, interception: Interception) -> Result<Config, ConfigError> {
        let sources = Sources {
            inject,
            values,
            mesh: "",
        };
        let options = Options {
            interception,
            ..Options::default()
        };
        Config::load(&sources, options)
    }

    #[test]
    fn the_configmap_and_a_bare_template_are_read() {
        let text = "policy: disabled\ninjectedAnnotations:\ndefaultTemplates: [a]\n\
                    neverInjectSelector:\n- matchLabels: {a: b}\ntemplates:\n  a: '{{ .Values }}'";
        let config = load(text, "{}", Interception::Keep).unwrap();
        assert_eq!(config.policy, "disabled");
        assert_eq!(config.default_templates, ["a"]);
        assert_eq!(
            config.never_inject_selector,
            json!([{"matchLabels": {"a": "b"}}])
        );
        let config = load(
            "metadata: {labels: {a: '{{ .Revision }}'}}",
            "{}",
            Interception::Keep,
        );
        let config = config.unwrap();
        assert_eq!(config.default_templates, ["sidecar"]);
        assert!(config.templates.contains_key("sidecar"));
    }

    #[test]
    fn errors_name_the_source_or_the_template() {
        let error = |inject, values| {
            load(inject, values, Interception::Keep)
                .unwrap_err()
                .to_string()
        };
        assert!(error("a: b", "[").contains("values"));
        assert!(error("a: b", "1").contains("values"));
        let problem = error("templates: {x: '{{ nope }}'}", "{}");
        assert!(
            problem.contains("template x") && problem.contains("nope"),
            "{problem}"
        );
        assert!(error("templates: {x: '{{ if }'}", "{}").contains("template x"));
    }

    #[test]
    fn the_interception_is_in_the_values_of_all_releases() {
        let values = |text, interception| load("a: b", text, interception).unwrap().values;
        let agent = values(r#"{"pilot": {"env": {}}}"#, Interception::Agent);
        assert_eq!(agent["pilot"]["cni"]["enabled"], true);
        assert_eq!(agent["pilot"]["cni"]["provider"], "default");
        assert_eq!(agent["istio_cni"]["chained"], true);
        let init = values(
            r#"{"istio_cni": {"enabled": true}}"#,
            Interception::IstioInit,
        );
        assert_eq!(init["istio_cni"]["enabled"], false);
        assert_eq!(init["pilot"]["cni"]["enabled"], false);
        let keep = values(r#"{"istio_cni": {"enabled": true}}"#, Interception::Keep);
        assert_eq!(keep, json!({"istio_cni": {"enabled": true}}));
    }
}
