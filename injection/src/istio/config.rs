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
    proxy_configs::ProxyConfigs,
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
    /// The cluster's resources of kind `ProxyConfig`.
    pub proxy_configs: ProxyConfigs,
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
            proxy_configs: ProxyConfigs::default(),
            check: |_, _| Ok(()),
        }
    }
}

/// One of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Sources::inject`].
    Inject,
    /// [`Sources::values`].
    Values,
    /// [`Sources::mesh`].
    Mesh,
}

/// A source that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ConfigError {
    /// Which source.
    pub part: Part,
    /// What is wrong, and where: a line, a field or a template.
    pub problem: String,
}

impl Part {
    fn error(self) -> impl Fn(String) -> ConfigError {
        move |problem| ConfigError {
            part: self,
            problem,
        }
    }
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

/// Its keys that no pod has.
const CONFIGURATION_KEYS: [&str; 4] = ["policy", "defaultTemplates", "templates", "aliases"];

impl Inject {
    /// A text that is not a configuration is a template itself.
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the text is empty".to_owned());
        }
        if !is_configuration(text) {
            return Ok(Self {
                templates: Some(BTreeMap::from([(SIDECAR.to_owned(), text.to_owned())])),
                ..Self::default()
            });
        }
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| yaml::first_line(&error))?;
        if config.templates.as_ref().is_none_or(BTreeMap::is_empty) {
            return Err("templates names no template".to_owned());
        }
        Ok(config)
    }

    fn default_templates(&mut self) -> Vec<String> {
        let named = self.default_templates.take().unwrap_or_default();
        if named.is_empty() {
            return vec![SIDECAR.to_owned()];
        }
        named
    }
}

/// Whether `text` has a key of a configuration. With an error in its syntax, it must not be taken for
/// a template: then a line that starts with the key is enough.
fn is_configuration(text: &str) -> bool {
    let is_key = |name: &str| CONFIGURATION_KEYS.contains(&name);
    match serde_saphyr::from_str(text) {
        Ok(Json::Object(keys)) => keys.keys().any(|key| is_key(key)),
        Ok(_) => false,
        Err(_) => text.lines().any(|line| {
            let (key, _) = line.split_once(':').unwrap_or_default();
            let in_json = key.trim_start_matches(['{', ' ']).strip_prefix('"');
            is_key(key.trim_end())
                || in_json
                    .and_then(|key| key.strip_suffix('"'))
                    .is_some_and(is_key)
        }),
    }
}

impl Config {
    /// Reads the sources and parses all templates.
    pub fn load(sources: &Sources<'_>, options: Options) -> Result<Self, ConfigError> {
        let mut inject = Inject::parse(sources.inject).map_err(Part::Inject.error())?;
        let default_templates = inject.default_templates();
        let raw_templates = inject.templates.unwrap_or_default();
        let mut values = yaml::read(sources.values).map_err(Part::Values.error())?;
        if !values.is_object() {
            let problem = "the values are not an object".to_owned();
            return Err(Part::Values.error()(problem));
        }
        let defaults = proxy_defaults(&values, &raw_templates);
        let mesh = Mesh::parse(sources.mesh, defaults).map_err(Part::Mesh.error())?;
        let templates = parse_templates(&raw_templates, options.native_sidecar);
        choose_interception(&mut values, options.interception);
        Ok(Self {
            policy: inject.policy.unwrap_or_else(|| "enabled".to_owned()),
            never_inject_selector: inject.never_inject_selector,
            always_inject_selector: inject.always_inject_selector,
            default_templates,
            aliases: inject.aliases.unwrap_or_default(),
            injected_annotations: inject.injected_annotations.unwrap_or_default(),
            templates: templates.map_err(Part::Inject.error())?,
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
) -> Result<BTreeMap<String, Template>, String> {
    let functions = functions::table(native_sidecar);
    texts
        .iter()
        .map(|(name, text)| {
            let template = Template::parse(text, &functions);
            let template = template.map_err(|problem| format!("template {name}, {problem}"))?;
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
        assert!(error("a: b", "[").starts_with("line 1 "));
        assert!(error("a: b", "1").contains("values"));
        assert!(error(" ", "{}").contains("empty"));
        assert_eq!(
            error("templates: {x: \"a\\n{{ nope }}\"}", "{}"),
            "template x, line 2: function nope is unknown"
        );
        let problem = error("templates: {x: '{{ if }'}", "{}");
        assert!(problem.starts_with("template x, line 1: "), "{problem}");
    }

    #[test]
    fn a_faulty_configuration_is_not_taken_for_a_template() {
        for (text, expected) in [
            (
                "policy: enabled\ntemplates:\n  sidecar: |\n  x: y: z",
                "line 4 ",
            ),
            ("{\n  \"templates\": {\n", "line "),
            ("policy: [1]\ntemplates: {a: b}", "line 1 "),
            ("policy: enabled", "templates"),
            ("templates: {}", "templates"),
        ] {
            let error = load(text, "{}", Interception::Keep).unwrap_err();
            assert_eq!(error.part, Part::Inject);
            assert!(error.problem.starts_with(expected), "{text}: {error}");
        }
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
