//! Istio's configuration: from files, or from the ConfigMaps of a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

mod cluster;

/// Where the sidecar's template and its values come from. Without any of these, the sidecar is the
/// built-in one.
#[derive(Args)]
#[command(next_help_heading = "Istio's configuration")]
pub(super) struct Sources {
    /// Use Istio's template from this file: the key config of the ConfigMap istio-sidecar-injector,
    /// or only a template
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,

    /// Values for the template: the key values of the ConfigMap istio-sidecar-injector
    #[arg(long = "valuesFile", value_name = "FILE")]
    values_file: Option<PathBuf>,

    /// Configuration of the mesh: the key mesh of the ConfigMap istio
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,

    #[command(flatten)]
    cluster: cluster::Cluster,
}

/// The texts of Istio's configuration.
pub(super) struct Texts {
    pub(super) inject: String,
    pub(super) values: String,
    pub(super) mesh: String,
}

impl Sources {
    pub(super) fn kubeconfig(&self) -> Option<&Path> {
        self.cluster.kubeconfig.as_deref()
    }

    /// Reads the files, if there are any.
    pub(super) fn files(&self) -> Result<Option<Texts>> {
        let mesh = optional(self.mesh_config_file.as_deref())?;
        match (&self.inject_config_file, &self.values_file) {
            (Some(inject), Some(values)) => Ok(Some(Texts {
                inject: text(inject)?,
                values: text(values)?,
                mesh: mesh.unwrap_or_default(),
            })),
            (None, None) if mesh.is_none() => Ok(None),
            _ => bail!(
                "Istio's template needs --injectConfigFile and --valuesFile, or --from-cluster"
            ),
        }
    }

    /// Reads the files, and from the cluster what they do not have.
    pub(super) fn with_cluster(&self, revision: &str) -> Result<Texts> {
        let inject = optional(self.inject_config_file.as_deref())?;
        let values = optional(self.values_file.as_deref())?;
        let mesh = optional(self.mesh_config_file.as_deref())?;
        match (inject, values, mesh) {
            (Some(inject), Some(values), Some(mesh)) => Ok(Texts {
                inject,
                values,
                mesh,
            }),
            (inject, values, mesh) => self.cluster.complete(revision, inject, values, mesh),
        }
    }
}

fn optional(path: Option<&Path>) -> Result<Option<String>> {
    path.map(text).transpose()
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
