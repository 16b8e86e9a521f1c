//! Istio's ConfigMaps in a cluster.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::Texts;
use crate::api_server;

/// Where Istio's ConfigMaps are.
#[derive(Args)]
pub(super) struct Cluster {
    /// ConfigMap with the template and its values [default: istio-sidecar-injector, or
    /// istio-sidecar-injector-REVISION]
    #[arg(long = "injectConfigMapName", value_name = "NAME")]
    inject_config_map: Option<String>,

    /// ConfigMap with the configuration of the mesh [default: istio, or istio-REVISION]
    #[arg(long = "meshConfigMapName", value_name = "NAME")]
    mesh_config_map: Option<String>,

    /// Namespace of Istio's ConfigMaps
    #[arg(
        short = 'i',
        long = "istioNamespace",
        value_name = "NAME",
        default_value = "istio-system"
    )]
    istio_namespace: String,

    /// Path of the kubeconfig file [default: $KUBECONFIG or ~/.kube/config]
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig file [default: its current context]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Cluster {
    /// The texts, of which those that are not given are read from the cluster.
    pub(super) fn complete(
        &self,
        revision: &str,
        inject: Option<String>,
        values: Option<String>,
        mesh: Option<String>,
    ) -> Result<Texts> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let injector = named(
            self.inject_config_map.as_deref(),
            "istio-sidecar-injector",
            revision,
        );
        let istio = named(self.mesh_config_map.as_deref(), "istio", revision);
        runtime.block_on(async {
            let maps = Api::namespaced(self.client().await?, &self.istio_namespace);
            Ok(Texts {
                inject: self.text(&maps, inject, &injector, "config").await?,
                values: self.text(&maps, values, &injector, "values").await?,
                mesh: self.text(&maps, mesh, &istio, "mesh").await?,
            })
        })
    }

    async fn client(&self) -> Result<Client> {
        let config = api_server::config(self.kubeconfig.as_deref(), self.context.as_deref());
        let config = config.await.context(
            "cannot read Istio's ConfigMaps from the cluster (name files with --injectConfigFile, \
             --valuesFile and --meshConfigFile to need no cluster)",
        )?;
        api_server::client(config)
    }

    async fn text(
        &self,
        maps: &Api<ConfigMap>,
        given: Option<String>,
        name: &str,
        key: &str,
    ) -> Result<String> {
        if let Some(text) = given {
            return Ok(text);
        }
        let namespace = &self.istio_namespace;
        let map = maps.get(name).await.map_err(api_server::described);
        let map = map.with_context(|| format!("cannot read ConfigMap {namespace}/{name}"))?;
        let data = map.data.and_then(|mut data| data.remove(key));
        data.with_context(|| format!("ConfigMap {namespace}/{name} has no key {key}"))
    }
}

/// Istiods with a revision have ConfigMaps of their own.
fn named(given: Option<&str>, name: &str, revision: &str) -> String {
    match given {
        Some(given) => given.to_owned(),
        None if ["", "default"].contains(&revision) => name.to_owned(),
        None => format!("{name}-{revision}"),
    }
}
