//! The options of the commands.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use interceptor_injection::{
    Config, Sidecar, builtin,
    decision::{Policy, Rules, selector, webhooks::DEFAULT_REVISION},
    istio::{self, Interception, Options},
};

use super::sources::{Sources, Texts};
use crate::{agent::policy::check_annotation, stdio::message};

/// What is injected, and where its configuration comes from.
#[derive(Args)]
pub(crate) struct SidecarOptions {
    #[command(flatten)]
    choices: Choices,

    /// Read what no file has from Istio's ConfigMaps in the cluster
    #[arg(long, help_heading = "Istio's configuration")]
    from_cluster: bool,

    #[command(flatten)]
    builtin: Builtin,
}

/// The options of `istioctl kube-inject`, and those that all commands have.
#[derive(Args)]
pub(crate) struct Choices {
    /// Revision of the injector, for the label istio.io/rev
    #[arg(short, long, value_name = "NAME", default_value = DEFAULT_REVISION)]
    revision: String,

    /// Whether the sidecar is a native one: an init container that keeps running. It requires
    /// Kubernetes 1.29. auto is true
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    native_sidecar: NativeSidecar,

    #[command(flatten)]
    sources: Sources,

    #[command(flatten)]
    istio: Istio,
}

/// Choices of Istio's sidecar.
#[derive(Args)]
#[command(next_help_heading = "With Istio's template")]
struct Istio {
    /// What redirects traffic: what Istio is configured for (keep), the node agent, or the init
    /// container istio-init [default: keep]
    #[arg(long, value_enum, value_name = "WHAT")]
    interception: Option<InterceptionChoice>,

    /// Whether the init container istio-validation stays with --interception agent, where it
    /// succeeds without privileges [default: drop]
    #[arg(long, value_enum, value_name = "WHAT")]
    validation: Option<Validation>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InterceptionChoice {
    Keep,
    Agent,
    IstioInit,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Validation {
    Keep,
    Drop,
}

/// Choices of the built-in sidecar.
#[derive(Args)]
#[command(next_help_heading = "With the built-in sidecar")]
struct Builtin {
    /// Start the app's containers when the proxy is ready
    #[arg(long)]
    hold: bool,

    /// Image of the built-in sidecar's proxy, with Envoy at /usr/local/bin/envoy
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,

    /// Envoy's configuration (JSON or YAML), in place of the built-in one
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum NativeSidecar {
    #[default]
    Auto,
    True,
    False,
}

impl SidecarOptions {
    /// The injector's revision.
    pub(crate) fn revision(&self) -> &str {
        &self.choices.revision
    }

    /// The value of `--kubeconfig`.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.choices.sources.kubeconfig()
    }

    /// The configuration: that of Istio, whose policy and selectors decide, or else the built-in
    /// sidecar.
    pub(crate) fn load(&self) -> Result<Config> {
        let Self {
            choices, builtin, ..
        } = self;
        let texts = if self.from_cluster {
            Some(choices.sources.with_cluster(&choices.revision)?)
        } else {
            choices.sources.files()?
        };
        let Some(texts) = texts else {
            return choices.builtin(builtin);
        };
        if builtin.is_set() {
            bail!(
                "--hold, --image and --bootstrap are for the built-in sidecar: Istio's template \
                 has values for them"
            );
        }
        let istio = choices.istio(&texts)?;
        Ok(config(rules(&istio), istio))
    }
}

impl Choices {
    /// The configuration of `istioctl kube-inject`: only the workload itself decides, and what no
    /// file has is read from the cluster.
    pub(crate) fn istioctl(&self) -> Result<Config> {
        let texts = self.sources.with_cluster(&self.revision)?;
        Ok(config(Rules::default(), self.istio(&texts)?))
    }

    fn is_native(&self) -> bool {
        self.native_sidecar != NativeSidecar::False
    }

    fn istio(&self, texts: &Texts) -> Result<istio::Config> {
        let sources = istio::Sources {
            inject: &texts.inject,
            values: &texts.values,
            mesh: &texts.mesh,
        };
        Ok(istio::Config::load(&sources, self.istio_options())?)
    }

    fn istio_options(&self) -> Options {
        Options {
            // The label istio.io/rev has a value also for the revision without a name.
            revision: match &*self.revision {
                DEFAULT_REVISION => String::new(),
                revision => revision.to_owned(),
            },
            native_sidecar: self.is_native(),
            interception: match self.istio.interception {
                None | Some(InterceptionChoice::Keep) => Interception::Keep,
                Some(InterceptionChoice::Agent) => Interception::Agent,
                Some(InterceptionChoice::IstioInit) => Interception::IstioInit,
            },
            keep_validation: self.istio.validation == Some(Validation::Keep),
            check: check_annotation,
        }
    }

    fn builtin(&self, flags: &Builtin) -> Result<Config> {
        if self.istio.interception.is_some() || self.istio.validation.is_some() {
            bail!(
                "--interception and --validation are for Istio's template, which \
                 --injectConfigFile or --from-cluster reads"
            );
        }
        let defaults = builtin::Config::default();
        let bootstrap = flags.bootstrap.as_ref().map(|path| {
            let text = fs::read_to_string(path)?;
            Ok(serde_saphyr::from_str(&text)?)
        });
        let bootstrap: Result<_> = bootstrap.transpose();
        let builtin = builtin::Config {
            image: flags.image.clone().unwrap_or(defaults.image),
            is_native: self.is_native(),
            hold: flags.hold,
            bootstrap: bootstrap.context("cannot read --bootstrap")?,
            ..defaults
        };
        Ok(Config {
            rules: Rules::default(),
            sidecar: Sidecar::Builtin(Box::new(builtin), check_annotation),
        })
    }
}

impl Builtin {
    const fn is_set(&self) -> bool {
        self.hold || self.image.is_some() || self.bootstrap.is_some()
    }
}

fn config(rules: Rules, istio: istio::Config) -> Config {
    Config {
        rules,
        sidecar: Sidecar::Istio(Arc::new(istio)),
    }
}

/// The rules of Istio's configuration. Selectors that cannot be used are reported.
fn rules(config: &istio::Config) -> Rules {
    let select = |name, objects| {
        let (selectors, warnings) = selector::list(name, objects);
        for warning in warnings {
            message!("interceptor: {warning}");
        }
        selectors
    };
    Rules {
        policy: Policy::named(&config.policy),
        never: select("neverInjectSelector", &config.never_inject_selector),
        always: select("alwaysInjectSelector", &config.always_inject_selector),
    }
}
