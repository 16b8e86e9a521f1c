//! Where Istio's configuration is: in files, or in the `ConfigMaps` of a cluster.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::{
    access::Access,
    origin::{ConfigMapName, Origin},
};
use crate::arguments::{dns_label, object_name, wrong_usage};

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

    /// ConfigMap with the template and its values [default: istio-sidecar-injector, or
    /// istio-sidecar-injector-REVISION]
    #[arg(
        long = "injectConfigMapName",
        value_name = "NAME",
        value_parser = object_name
    )]
    inject_config_map: Option<String>,

    /// ConfigMap with the configuration of the mesh [default: istio, or istio-REVISION]
    #[arg(
        long = "meshConfigMapName",
        value_name = "NAME",
        value_parser = object_name
    )]
    mesh_config_map: Option<String>,

    /// Namespace of Istio's ConfigMaps
    #[arg(
        short = 'i',
        long = "istioNamespace",
        value_name = "NAME",
        default_value = "istio-system",
        value_parser = dns_label
    )]
    istio_namespace: String,

    #[command(flatten)]
    pub(super) access: Access,
}

/// Where the texts of Istio's configuration are.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    pub(super) inject: Origin,
    pub(super) values: Origin,
    /// Without one, Istio's defaults apply.
    pub(super) mesh: Option<Origin>,
}

impl Sources {
    /// The files, if there are any.
    pub(super) fn files(&self) -> Result<Option<Origins>> {
        let file = |path: &Path| Origin::File(path.to_owned());
        let mesh = self.mesh_config_file.as_deref().map(file);
        match (&self.inject_config_file, &self.values_file) {
            (Some(inject), Some(values)) => Ok(Some(Origins {
                inject: file(inject),
                values: file(values),
                mesh,
            })),
            (None, None) if mesh.is_none() => Ok(None),
            _ => Err(wrong_usage(
                "Istio's template requires --injectConfigFile, --valuesFile and, unless Istio's \
                 defaults apply to the mesh, --meshConfigFile; or --from-cluster for what no file \
                 has",
            )),
        }
    }

    /// The files, and `ConfigMaps` for what has no file.
    pub(super) fn with_cluster(&self, revision: &str) -> Origins {
        let namespace = &self.istio_namespace;
        let injector = ConfigMapName::of_injector(namespace, revision);
        let injector = injector.renamed(self.inject_config_map.as_deref());
        let mesh = ConfigMapName::of_istio(namespace, "istio", revision);
        let mesh = mesh.renamed(self.mesh_config_map.as_deref());
        let or = |file: Option<&PathBuf>, map: &ConfigMapName, key| match file {
            Some(path) => Origin::File(path.clone()),
            None => Origin::ConfigMap(map.clone(), key),
        };
        Origins {
            inject: or(self.inject_config_file.as_ref(), &injector, "config"),
            values: or(self.values_file.as_ref(), &injector, "values"),
            mesh: Some(or(self.mesh_config_file.as_ref(), &mesh, "mesh")),
        }
    }
}
