//! Where the parts of a configuration are, and what to make of them.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use interceptor_injection::{
    ByNode, Config, Outcome, Sidecar, Subject, builtin,
    decision::{INJECT, Policy, Rules, selector},
    inject,
    istio::{self, AnnotationCheck, Part, ProxyConfigs},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    access::Access,
    inputs::Inputs,
    native::{NativeSidecar, Version},
    origin::{ConfigMapName, Origin},
    sources::Origins,
};

/// Where the parts of a configuration are, and what to make of them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) contents: Contents,
    pub(super) native: NativeSidecar,
    pub(super) access: Access,
}

/// Which sidecar.
#[derive(Clone, Debug)]
pub(super) enum Contents {
    Builtin {
        config: Box<builtin::Config>,
        /// Envoy's configuration, in place of the built-in one.
        bootstrap: Option<Origin>,
        check: AnnotationCheck,
    },
    Istio {
        origins: Origins,
        options: istio::Options,
        /// Whether the policy and the selectors of the configuration apply.
        decides_by_policy: bool,
    },
}

/// A configuration, and what the user should know about it, one sentence each.
pub(crate) struct Configured {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Problem {
    /// Where, if one text is the cause.
    pub(crate) origin: Option<Origin>,
    pub(crate) problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(formatter, "{origin}: ")?;
        }
        formatter.write_str(&self.problem)
    }
}

impl Problem {
    fn at(origin: &Origin) -> impl Fn(String) -> Self {
        move |problem| Self {
            origin: Some(origin.clone()),
            problem,
        }
    }

    fn of_cluster(problem: String) -> Self {
        Self {
            origin: None,
            problem,
        }
    }
}

impl Plan {
    /// Where the texts are.
    pub(super) fn origins(&self) -> Vec<&Origin> {
        match &self.contents {
            Contents::Builtin { bootstrap, .. } => bootstrap.iter().collect(),
            Contents::Istio { origins, .. } => [&origins.inject, &origins.values]
                .into_iter()
                .chain(&origins.mesh)
                .collect(),
        }
    }

    /// The files with texts.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self
            .origins()
            .into_iter()
            .filter_map(|origin| match origin {
                Origin::File(path) => Some(path.clone()),
                Origin::ConfigMap(..) => None,
            });
        files.collect()
    }

    /// The `ConfigMaps` with texts.
    pub(super) fn config_maps(&self) -> BTreeSet<ConfigMapName> {
        let maps = self
            .origins()
            .into_iter()
            .filter_map(|origin| match origin {
                Origin::File(_) => None,
                Origin::ConfigMap(name, _) => Some(name.clone()),
            });
        maps.collect()
    }

    /// Whether a text is in the cluster.
    pub(crate) fn needs_cluster(&self) -> bool {
        !self.config_maps().is_empty()
    }

    /// Whether the nodes' kubelets decide about native sidecars.
    pub(super) fn depends_on_kubelets(&self) -> bool {
        self.native == NativeSidecar::Auto
    }

    /// Whether the cluster's resources of kind `ProxyConfig` apply: if `ConfigMaps` do.
    pub(super) fn depends_on_proxy_configs(&self) -> bool {
        matches!(self.contents, Contents::Istio { .. }) && self.needs_cluster()
    }

    /// The configuration.
    pub(crate) fn configure(&self, inputs: &Inputs) -> Result<Configured, Problem> {
        let mut warnings = Vec::new();
        let is_native = self.is_native(inputs, &mut warnings)?;
        let mut config = self.configure_for(inputs, is_native, &mut warnings)?;
        let nodes = self.exceptions(inputs);
        if !nodes.is_empty() {
            let there = self.configure_for(inputs, !is_native, &mut Vec::new())?;
            config.sidecar = Sidecar::ByNode(Box::new(ByNode {
                nodes,
                there: there.sidecar,
                elsewhere: config.sidecar,
            }));
        }
        Ok(Configured { config, warnings })
    }

    /// The configuration of nodes where sidecars are native, or of those where they are not.
    fn configure_for(
        &self,
        inputs: &Inputs,
        native_sidecar: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Config, Problem> {
        Ok(match &self.contents {
            Contents::Builtin {
                config,
                bootstrap,
                check,
            } => {
                let config = builtin::Config {
                    is_native: native_sidecar,
                    bootstrap: bootstrap
                        .as_ref()
                        .map(|origin| bootstrap_at(inputs, origin))
                        .transpose()?,
                    ..(**config).clone()
                };
                Config {
                    rules: Rules::default(),
                    sidecar: Sidecar::Builtin(Box::new(config), *check),
                }
            }
            Contents::Istio {
                origins,
                options,
                decides_by_policy,
            } => {
                let options = istio::Options {
                    native_sidecar,
                    proxy_configs: proxy_configs(inputs, &options.revision, warnings)?,
                    ..options.clone()
                };
                let istio = load(origins, options, inputs)?;
                let rules = if *decides_by_policy {
                    rules(&istio, &origins.inject, warnings)
                } else {
                    Rules::default()
                };
                Config {
                    rules,
                    sidecar: Sidecar::Istio(Arc::new(istio)),
                }
            }
        })
    }

    /// The nodes whose pods have native sidecars although others have not.
    fn exceptions(&self, inputs: &Inputs) -> BTreeSet<String> {
        match (self.native, &inputs.kubelets) {
            (NativeSidecar::Auto, Some(Ok(kubelets))) => kubelets.exceptions.clone(),
            _ => BTreeSet::new(),
        }
    }

    fn is_native(&self, inputs: &Inputs, warnings: &mut Vec<String>) -> Result<bool, Problem> {
        let oldest = match (self.native, &inputs.kubelets) {
            (NativeSidecar::True, _) => return Ok(true),
            (NativeSidecar::False, _) => return Ok(false),
            (NativeSidecar::Auto, Some(Ok(kubelets))) => kubelets.oldest.as_ref(),
            (NativeSidecar::Auto, Some(Err(problem))) => {
                return Err(Problem::of_cluster(problem.clone()));
            }
            (NativeSidecar::Auto, None) => None,
        };
        let objection = oldest.and_then(|oldest| oldest.objection(self.minimum_version()));
        let is_native = objection.is_none();
        warnings.extend(objection);
        Ok(is_native)
    }

    /// The oldest Kubernetes with native sidecars. For Istio's template it is Istio's choice.
    pub(super) const fn minimum_version(&self) -> Version {
        match self.contents {
            Contents::Builtin { .. } => Version::ENABLED,
            Contents::Istio { .. } => Version::STABLE,
        }
    }

    /// What is assumed about a cluster that is not read.
    pub(crate) fn assumption(&self) -> Option<String> {
        let minimum = self.minimum_version();
        self.depends_on_kubelets().then(|| {
            format!(
                "the sidecar is native, which requires Kubernetes {minimum}: for older ones, set \
                 --native-sidecar false"
            )
        })
    }

    /// Injects a small pod, so that a template is not used that parses, but whose result is no pod.
    /// Where nodes differ, also one on a node that differs.
    pub(crate) fn try_out(&self, config: &Config) -> Result<(), Problem> {
        self.try_on(None, config)?;
        match &config.sidecar {
            Sidecar::ByNode(sidecars) => self.try_on(sidecars.nodes.first(), config),
            Sidecar::Builtin(..) | Sidecar::Istio(_) => Ok(()),
        }
    }

    fn try_on(&self, node: Option<&String>, config: &Config) -> Result<(), Problem> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "trial", "labels": {INJECT: "true"}},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app"}]},
        });
        let subject = Subject {
            namespace: "default".to_owned(),
            ..Subject::default()
        };
        match inject(&pod, &subject, config) {
            Ok(Outcome::Inject(_) | Outcome::Skip(_)) => Ok(()),
            Err(refusal) => {
                let origin = match &self.contents {
                    Contents::Builtin { bootstrap, .. } => bootstrap.clone(),
                    Contents::Istio { origins, .. } => Some(origins.inject.clone()),
                };
                Err(Problem {
                    origin,
                    problem: format!("no pod can be injected: {refusal}"),
                })
            }
        }
    }
}

/// Envoy's configuration at `origin`. Its fields are not checked: Envoy's versions differ.
fn bootstrap_at(inputs: &Inputs, origin: &Origin) -> Result<Value, Problem> {
    let problem = |problem: String| {
        Problem::at(origin)(format!("Envoy's configuration (--bootstrap) {problem}"))
    };
    let text = inputs.text(origin).map_err(problem)?;
    let value: Value = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        let first = first.trim_start_matches("error: ");
        problem(format!("is not valid YAML: {first}"))
    })?;
    if !value.is_object() {
        return Err(problem(
            "must be a mapping with Envoy's fields, such as static_resources".to_owned(),
        ));
    }
    Ok(value)
}

/// The text at `origin`. A file with a whole `ConfigMap` would be an empty configuration.
fn text_at<'a>(inputs: &'a Inputs, origin: &Origin) -> Result<&'a str, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Object {
        api_version: String,
        kind: String,
    }
    let text = inputs.text(origin).map_err(Problem::at(origin))?;
    if let Origin::File(_) = origin
        && let Ok(Object { api_version, kind }) = serde_saphyr::from_str(text)
    {
        return Err(Problem::at(origin)(format!(
            "is the manifest of an object ({api_version} {kind}): expected the text of one key of \
             Istio's ConfigMap, such as `kubectl get configmap -n istio-system \
             istio-sidecar-injector -o jsonpath='{{.data.config}}'` prints"
        )));
    }
    Ok(text)
}

fn proxy_configs(
    inputs: &Inputs,
    revision: &str,
    warnings: &mut Vec<String>,
) -> Result<ProxyConfigs, Problem> {
    match &inputs.proxy_configs {
        None => Ok(ProxyConfigs::default()),
        Some(Err(problem)) => Err(Problem::of_cluster(problem.clone())),
        Some(Ok(objects)) => {
            let (configs, unusable) = ProxyConfigs::parse(objects, revision);
            warnings.extend(unusable);
            Ok(configs)
        }
    }
}

fn load(
    origins: &Origins,
    options: istio::Options,
    inputs: &Inputs,
) -> Result<istio::Config, Problem> {
    let text = |origin| text_at(inputs, origin);
    let sources = istio::Sources {
        inject: text(&origins.inject)?,
        values: text(&origins.values)?,
        mesh: origins
            .mesh
            .as_ref()
            .map(text)
            .transpose()?
            .unwrap_or_default(),
    };
    istio::Config::load(&sources, options).map_err(|error| Problem {
        origin: match error.part {
            Part::Inject => Some(origins.inject.clone()),
            Part::Values => Some(origins.values.clone()),
            Part::Mesh => origins.mesh.clone(),
        },
        problem: error.problem,
    })
}

/// The rules of Istio's configuration. Selectors that cannot be used are reported.
fn rules(config: &istio::Config, origin: &Origin, warnings: &mut Vec<String>) -> Rules {
    let mut select = |name, objects| {
        let (selectors, unusable) = selector::list(name, objects);
        warnings.extend(
            unusable
                .iter()
                .map(|problem| format!("{origin}: {problem}")),
        );
        selectors
    };
    Rules {
        policy: Policy::named(&config.policy),
        never: select("neverInjectSelector", &config.never_inject_selector),
        always: select("alwaysInjectSelector", &config.always_inject_selector),
    }
}
