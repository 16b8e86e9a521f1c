//! The sidecars, and their configurations for the function and for the binary.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use interceptor_injection::{
    Config, builtin,
    decision::Rules,
    istio::{self, Options, Sources},
};
use serde_json::{Value, json};

/// Of similar size and work as Istio's.
const OWN_TEMPLATE: &str = include_str!("configuration/template.yaml");
const OWN_VALUES: &str = include_str!("configuration/values.json");
/// In a checkout of Istio.
const CHART: &str = "manifests/charts/istio-control/istio-discovery";
const MESH: &str = "{trustDomain: cluster.local, rootNamespace: istio-system, \
    enablePrometheusMerge: true, \
    defaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012'}}";

/// A template with its values.
#[derive(Clone, Debug)]
pub(super) struct Template {
    is_istios: bool,
    inject: String,
    values: String,
}

/// What pods get.
#[derive(Clone, Debug)]
pub(super) enum Sidecar {
    Template(Template),
    Builtin,
}

impl Template {
    /// Istio's, of the checkout that `ISTIO_DIR` names; else our own.
    pub(super) fn find() -> Result<Self> {
        match env::var_os("ISTIO_DIR") {
            Some(directory) => Self::of_checkout(Path::new(&directory)),
            None => Ok(Self {
                is_istios: false,
                inject: OWN_TEMPLATE.to_owned(),
                values: OWN_VALUES.to_owned(),
            }),
        }
    }

    fn of_checkout(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(CHART).join(name);
            fs::read_to_string(&path).with_context(|| format!("ISTIO_DIR: {}", path.display()))
        };
        let template = read("files/injection-template.yaml")?;
        Ok(Self {
            is_istios: true,
            inject: json!({"templates": {"sidecar": template}}).to_string(),
            values: values(&read("values.yaml")?)?.to_string(),
        })
    }

    /// Where it comes from.
    pub(super) const fn description(&self) -> &'static str {
        if self.is_istios {
            "Istio's own (`ISTIO_DIR`)"
        } else {
            "one of this benchmark, of similar size as Istio's; `ISTIO_DIR` names a checkout of \
             Istio to use its own"
        }
    }
}

/// The part of the chart's values that its `ConfigMap` has.
fn values(chart: &str) -> Result<Value> {
    let mut values: Value = serde_saphyr::from_str(chart)?;
    for inner in ["_internal_defaults_do_not_set", "defaults"] {
        if values[inner].is_object() {
            values = values[inner].take();
        }
    }
    let pilot = values["pilot"].take();
    let setting = |name: &str| values.get(name).or_else(|| pilot.get(name)).cloned();
    Ok(json!({
        "global": values["global"],
        "sidecarInjectorWebhook": values["sidecarInjectorWebhook"],
        "revision": values["revision"],
        "pilot": {"cni": setting("cni"), "env": setting("env")},
    }))
}

impl Sidecar {
    /// The column of its numbers.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Template(_) => super::targets::TEMPLATE,
            Self::Builtin => super::targets::BUILTIN,
        }
    }

    /// For the function.
    pub(super) fn config(&self) -> Result<Config> {
        let check = |_: &str, _: &str| Ok(());
        let sidecar = match self {
            Self::Template(template) => {
                let sources = Sources {
                    inject: &template.inject,
                    values: &template.values,
                    mesh: MESH,
                };
                let config = istio::Config::load(&sources, Options::default())?;
                interceptor_injection::Sidecar::Istio(Arc::new(config))
            }
            Self::Builtin => {
                let config = Box::<builtin::Config>::default();
                interceptor_injection::Sidecar::Builtin(config, check)
            }
        };
        Ok(Config {
            rules: Rules::default(),
            sidecar,
        })
    }

    /// For the binary: its options, with files in `directory`.
    pub(super) fn arguments(&self, directory: &Path) -> Result<Vec<String>> {
        let Self::Template(template) = self else {
            return Ok(Vec::new());
        };
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let files = [
            ("injectConfigFile", write("inject", &template.inject)?),
            ("valuesFile", write("values", &template.values)?),
            ("meshConfigFile", write("mesh", MESH)?),
        ];
        let option = |(name, path): &(&str, PathBuf)| format!("--{name}={}", path.display());
        Ok(files.iter().map(option).collect())
    }
}

#[cfg(test)]
mod tests {
    use interceptor_injection::{Outcome, inject};

    use super::*;
    use crate::injection::pods::Workloads;

    #[test]
    fn the_own_template_makes_about_what_istios_does() {
        let template = Template {
            is_istios: false,
            inject: OWN_TEMPLATE.to_owned(),
            values: OWN_VALUES.to_owned(),
        };
        let config = Sidecar::Template(template)
            .config()
            .expect("a configuration");
        let pod = Workloads::new(1).pod(0);
        let outcome = inject(&pod, &Workloads::subject(), &config);
        let Ok(Outcome::Inject(injected)) = outcome else {
            panic!("{outcome:?}");
        };
        let size = injected.pod.to_string().len() - pod.to_string().len();
        assert!((5_000..9_000).contains(&size), "{size}");
    }
}
