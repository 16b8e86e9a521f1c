//! The objects of the agent's deployment: its `DaemonSet`, its namespace, its `ServiceAccount`.
//!
//! `kubectl delete -k` deletes the agent's permissions within a second of its `DaemonSet`, mostly
//! before it, so at SIGTERM the API server refuses (401 or 403) to return the `DaemonSet`. But an API
//! server does not end a watch when the permissions of its client are deleted. So the agent watches two
//! objects from its start, and receives their deletion in any order of deletion. Both rarely change,
//! unlike the `DaemonSet`, whose status changes with every node.

use std::{cell::Cell, fmt::Debug, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, future, pin_mut};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::shutdown::{self, DaemonSetState, Deleted, ShutdownAction};
use crate::{agent::install::InstallOptions, api_server};

/// Limit for deciding whether to uninstall: kubelet kills the agent after ten seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between requests.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The agent's own deployment.
pub struct Deployment {
    pod: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    deleted: Cell<Deleted>,
}

impl Deployment {
    /// Assumes that nothing is deleted.
    #[must_use]
    pub fn new(options: &InstallOptions) -> Self {
        Self {
            pod: options.pod_name.clone(),
            namespace: options.pod_namespace.clone(),
            service_account: options.service_account.clone(),
            deleted: Cell::default(),
        }
    }

    /// Watches the namespace and the `ServiceAccount`.
    pub async fn watch(&self, client: Client) {
        let Some(namespace) = &self.namespace else {
            return;
        };
        let namespaces = Api::<Namespace>::all(client.clone());
        let own = each_change(namespaces, namespace, |is_deleted| {
            self.update(|deleted| deleted.namespace = is_deleted);
        });
        let account = async {
            let Some(name) = &self.service_account else {
                return;
            };
            let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
            let changes = each_change(accounts, name, |is_deleted| {
                self.update(|deleted| deleted.service_account = is_deleted);
            });
            changes.await;
        };
        future::join(own, account).await;
    }

    fn update(&self, change: impl FnOnce(&mut Deleted)) {
        let mut deleted = self.deleted.get();
        change(&mut deleted);
        self.deleted.set(deleted);
    }

    /// Determines whether to uninstall. `client` should not retry by itself: if no response decides,
    /// the last response is the reported reason.
    pub async fn shutdown_action(&self, client: &Client) -> ShutdownAction {
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        let seconds = SHUTDOWN_TIMEOUT.as_secs();
        let mut last = DaemonSetState::Unknown(format!(
            "no response from the API server within {seconds} s"
        ));
        loop {
            let result = timeout_at(deadline, self.daemon_set_state(client)).await;
            let is_late = result.is_err();
            last = result.unwrap_or(last);
            let action = shutdown::decide(&last, self.deleted.get());
            if is_late || self.pod.is_none() || !matches!(action, ShutdownAction::Unsure(_)) {
                return action;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn daemon_set_state(&self, client: &Client) -> DaemonSetState {
        match self.daemon_set(client).await {
            Ok((_, Some(set))) if set.metadata.deletion_timestamp.is_none() => {
                DaemonSetState::Exists(full_name(&set))
            }
            Ok((name, _)) => DaemonSetState::Deleted(name),
            Err(error) => DaemonSetState::Unknown(format!("{error:#}")),
        }
    }

    /// The agent's `DaemonSet` and its name, from the agent's own pod. `None` only if the API server
    /// responds that the `DaemonSet` does not exist.
    async fn daemon_set(&self, client: &Client) -> Result<(String, Option<DaemonSet>)> {
        let (Some(pod), Some(namespace)) = (&self.pod, &self.namespace) else {
            anyhow::bail!("the agent's own pod is not configured (POD_NAME, POD_NAMESPACE)");
        };
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let found = pods.get(pod).await.map_err(api_server::described);
        let found = found.with_context(|| format!("cannot get the pod {namespace}/{pod}"))?;
        let owners = found.metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|owner| owner.kind == "DaemonSet");
        let owner = owner
            .with_context(|| format!("the pod {namespace}/{pod} has no owner of kind DaemonSet"))?;
        let name = format!("{namespace}/{}", owner.name);
        let sets = Api::<DaemonSet>::namespaced(client.clone(), namespace);
        let set = sets
            .get_opt(&owner.name)
            .await
            .map_err(api_server::described);
        let set = set.with_context(|| format!("cannot get the DaemonSet {name}"))?;
        Ok((name, set))
    }
}

fn full_name(set: &DaemonSet) -> String {
    format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any())
}

/// Calls `update` at each change of the object, with whether it is deleted or being deleted.
async fn each_change<K>(api: Api<K>, name: &str, update: impl Fn(bool))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let changes = watch_object(api, name).default_backoff();
    pin_mut!(changes);
    let mut has_warned = false;
    while let Some(change) = changes.next().await {
        match change {
            Ok(object) => {
                has_warned = false;
                update(object.is_none_or(|object| object.meta().deletion_timestamp.is_some()));
            }
            Err(error) if !has_warned => {
                has_warned = true;
                let (kind, problem) = (K::kind(&()), api_server::error_text(&error));
                warn!("cannot watch the agent's own {kind} {name}, retrying: {problem}");
            }
            Err(_repeated) => {}
        }
    }
}
