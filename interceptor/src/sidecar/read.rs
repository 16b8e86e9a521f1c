//! Reads the parts of a configuration once.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use interceptor_injection::Config;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::Value;

use super::{
    inputs::{self, Inputs},
    native::Kubelets,
    nodes,
    origin::{ConfigMapName, Origin},
    plan::Plan,
    proxy_configs::{self, Absence},
};
use crate::{api_server, stdio::message};

/// Limit of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Plan {
    /// Reads the configuration, and prints what the user should know about it.
    pub(crate) fn load(&self) -> Result<Config> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let configured = self.configure(&runtime.block_on(self.read())?)?;
        for warning in configured.warnings {
            message!("interceptor: {warning}");
        }
        Ok(configured.config)
    }

    /// Reads everything once. The cluster is read only if a text is there.
    async fn read(&self) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        for path in self.files() {
            let text = inputs::file(&path).await;
            inputs.texts.insert(Origin::File(path), text);
        }
        if self.needs_cluster() {
            self.read_cluster(&mut inputs).await.context(
                "cannot read Istio's configuration from the cluster (--injectConfigFile, \
                 --valuesFile and --meshConfigFile name files instead)",
            )?;
        }
        Ok(inputs)
    }

    async fn read_cluster(&self, inputs: &mut Inputs) -> Result<()> {
        let client = self.access.client().await?;
        let origins: Vec<_> = self.origins().into_iter().cloned().collect();
        for name in self.config_maps() {
            let found = config_map(client.clone(), &name).await?;
            inputs.set_config_map(&name, found.as_ref(), &origins);
        }
        if self.depends_on_proxy_configs() {
            inputs.proxy_configs = Some(Ok(proxy_configs_of(client.clone()).await?));
        }
        if self.depends_on_kubelets() {
            match nodes::kubelets(client, self.minimum_version()).await {
                Ok(kubelets) => inputs.kubelets = Some(Ok(kubelets)),
                // Not every user may list nodes.
                Err(error) => {
                    let problem = api_server::error_text(&error);
                    message!(
                        "interceptor: sidecars are native: cannot list the nodes, whose version \
                         decides (--native-sidecar auto): {problem}"
                    );
                    inputs.kubelets = Some(Ok(Kubelets::default()));
                }
            }
        }
        Ok(())
    }
}

/// Without the kind there are none; not every user may list them.
async fn proxy_configs_of(client: Client) -> Result<Vec<Value>> {
    let listed = api_server::request(TIMEOUT, proxy_configs::list(client)).await;
    let listed = listed.map_err(|problem| anyhow!("cannot list the ProxyConfigs: {problem}"))?;
    listed.or_else(|absence| {
        if absence == Absence::NoRight {
            message!("interceptor: pods are injected without ProxyConfigs: {absence}");
        }
        Ok(Vec::new())
    })
}

/// The `ConfigMap` of this name, if there is one.
pub(crate) async fn config_map(client: Client, name: &ConfigMapName) -> Result<Option<ConfigMap>> {
    let maps = Api::<ConfigMap>::namespaced(client, &name.namespace);
    let found = api_server::request(TIMEOUT, maps.get_opt(&name.name)).await;
    found.map_err(|problem| anyhow!("cannot read {name}: {problem}"))
}
