//! The options of the commands.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Arg, ArgGroup, Args, Command, ValueEnum};
use interceptor_injection::{
    builtin,
    decision::webhooks::DEFAULT_REVISION,
    istio::{self, Interception},
};

use super::{
    access::Access,
    native::NativeSidecar,
    origin::Origin,
    plan::{Contents, Plan},
    sources::{Origins, Sources},
};
use crate::{
    agent::policy::check_annotation,
    arguments::{image_reference, revision},
};

/// What is injected, and where its configuration comes from.
#[derive(Args)]
#[command(
    group = ArgGroup::new(TEMPLATE).args(["inject_config_file", FROM_CLUSTER]).multiple(true),
    mut_arg("inject_config_map", of_cluster),
    mut_arg("mesh_config_map", of_cluster),
    mut_arg("istio_namespace", of_cluster),
    mut_arg("interception", of_template),
    mut_arg("validation", of_template),
    mut_arg("hold", of_builtin),
    mut_arg("image", of_builtin),
    mut_arg("bootstrap", of_builtin)
)]
pub(crate) struct SidecarOptions {
    #[command(flatten)]
    choices: Choices,

    /// Read what no file has from the cluster: Istio's ConfigMaps and ProxyConfigs
    #[arg(long, help_heading = "Istio's configuration")]
    from_cluster: bool,

    #[command(flatten)]
    builtin: Builtin,
}

/// The option that reads `ConfigMaps`.
pub(crate) const FROM_CLUSTER: &str = "from_cluster";
/// The options that name Istio's template.
const TEMPLATE: &str = "template";

/// An option that has no effect if no `ConfigMap` is read.
pub(crate) fn of_cluster(option: Arg) -> Arg {
    option.requires(FROM_CLUSTER)
}

/// An option with which all options about the sidecar have no effect.
pub(crate) fn without_sidecar(option: Arg) -> Arg {
    let command = SidecarOptions::augment_args(Command::new(""));
    let options = command
        .get_arguments()
        .map(|option| option.get_id().clone());
    option.conflicts_with_all(options)
}

/// An option that has no effect on the built-in sidecar.
fn of_template(option: Arg) -> Arg {
    option.requires(TEMPLATE)
}

/// An option that has no effect with Istio's template, which has values for it.
fn of_builtin(option: Arg) -> Arg {
    let template = [
        "inject_config_file",
        "values_file",
        "mesh_config_file",
        FROM_CLUSTER,
    ];
    option.conflicts_with_all(template)
}

/// The options of `istioctl kube-inject`, and those that all commands have.
#[derive(Args)]
pub(crate) struct Choices {
    /// Revision of the injector, for the label istio.io/rev
    #[arg(short, long, value_name = "NAME", default_value = DEFAULT_REVISION, value_parser = revision)]
    revision: String,

    /// Whether the sidecar is a native one: an init container that keeps running. auto: if all
    /// kubelets of the cluster support it, or if no cluster is read
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
    #[arg(long, value_enum, value_name = "WHAT", requires = "interception")]
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
    #[arg(long, value_name = "REFERENCE", value_parser = image_reference)]
    image: Option<String>,

    /// Envoy's configuration (JSON or YAML), in place of the built-in one
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
}

impl SidecarOptions {
    /// The injector's revision.
    pub(crate) fn revision(&self) -> &str {
        &self.choices.revision
    }

    /// How to reach the cluster.
    pub(crate) fn access(&self) -> &Access {
        &self.choices.sources.access
    }

    /// That of Istio, whose policy and selectors decide, or else the built-in sidecar.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let (choices, builtin) = (&self.choices, &self.builtin);
        let origins = if self.from_cluster {
            Some(choices.sources.with_cluster(&choices.revision))
        } else {
            choices.sources.files()?
        };
        Ok(match origins {
            Some(origins) => choices.istio(origins, true),
            None => choices.plan(builtin.contents()),
        })
    }
}

impl Choices {
    /// The plan of `istioctl kube-inject`: only the workload itself decides, and what no file has is
    /// read from the cluster.
    pub(crate) fn istioctl_plan(&self) -> Plan {
        self.istio(self.sources.with_cluster(&self.revision), false)
    }

    fn istio(&self, origins: Origins, decides_by_policy: bool) -> Plan {
        self.plan(Contents::Istio {
            origins,
            options: self.istio_options(),
            decides_by_policy,
        })
    }

    fn plan(&self, contents: Contents) -> Plan {
        Plan {
            contents,
            native: self.native_sidecar,
            access: self.sources.access.clone(),
        }
    }

    fn istio_options(&self) -> istio::Options {
        istio::Options {
            // The label istio.io/rev has a value also for the revision without a name.
            revision: match &*self.revision {
                DEFAULT_REVISION => String::new(),
                revision => revision.to_owned(),
            },
            interception: match self.istio.interception {
                None | Some(InterceptionChoice::Keep) => Interception::Keep,
                Some(InterceptionChoice::Agent) => Interception::Agent,
                Some(InterceptionChoice::IstioInit) => Interception::IstioInit,
            },
            keep_validation: self.istio.validation == Some(Validation::Keep),
            check: check_annotation,
            ..istio::Options::default()
        }
    }
}

impl Builtin {
    fn contents(&self) -> Contents {
        let defaults = builtin::Config::default();
        Contents::Builtin {
            config: Box::new(builtin::Config {
                image: self.image.clone().unwrap_or(defaults.image),
                hold: self.hold,
                ..defaults
            }),
            bootstrap: self.bootstrap.clone().map(Origin::File),
            check: check_annotation,
        }
    }
}
