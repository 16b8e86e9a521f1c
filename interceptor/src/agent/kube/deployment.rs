//! The objects that the agent was deployed with: its `DaemonSet`, its namespace, its `ServiceAccount`.
//!
//! `kubectl delete -k` deletes the agent's rights within a second of its `DaemonSet`, mostly before
//! it, so at SIGTERM the API server refuses (401 or 403) to return the `DaemonSet`. But an
//! API server does not end a watch because the rights that it began with are deleted. So the agent
//! watches two objects from its start, and is told of their deletion whatever is deleted first. Both
//! hardly ever change, unlike the `DaemonSet`, whose status changes with every node.

use std::{cell::Cell, fmt::Debug, time::Duration};

use anyhow::{Context as _, Error, Result};
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

use super::{
    api,
    shutdown::{self, DaemonSetState, Deleted, ShutdownAction},
};
use crate::agent::install::InstallOptions;

/// Limit for deciding whether to uninstall: kubelet kills the agent after ten seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between requests.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// What the agent knows of its own deployment.
pub struct Deployment {
    pod: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    deleted: Cell<Deleted>,
}

impl Deployment {
    /// Nothing is known to be deleted.
    #[must_use]
    pub fn new(options: &InstallOptions) -> Self {
        Self {
            pod: options.pod_name.clone(),
            namespace: options.pod_namespace.clone(),
            service_account: options.service_account.clone(),
            deleted: Cell::default(),
        }
    }

    /// Watches the namespace and the `ServiceAccount`, for ever.
    pub async fn follow(&self, client: Client) {
        let Some(namespace) = &self.namespace else {
            return;
        };
        let namespaces = Api::<Namespace>::all(client.clone());
        let own = each_change(namespaces, namespace, |is_deleted| {
            self.note(|deleted| deleted.namespace = is_deleted);
        });
        let account = async {
            let Some(name) = &self.service_account else {
                return;
            };
            let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
            let changes = each_change(accounts, name, |is_deleted| {
                self.note(|deleted| deleted.service_account = is_deleted);
            });
            changes.await;
        };
        future::join(own, account).await;
    }

    fn note(&self, change: impl FnOnce(&mut Deleted)) {
        let mut deleted = self.deleted.get();
        change(&mut deleted);
        self.deleted.set(deleted);
    }

    /// Finds out whether to uninstall. `client` should not retry by itself: if no answer decides, the
    /// last one is the reason.
    pub async fn shutdown_action(&self, client: &Client) -> ShutdownAction {
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        let seconds = SHUTDOWN_TIMEOUT.as_secs();
        let mut last = DaemonSetState::Unknown(format!(
            "no response from the API server within {seconds} \
             s"
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
            Ok((name, _)) => DaemonSetState::Gone(name),
            Err(error) => DaemonSetState::Unknown(format!("{error:#}")),
        }
    }

    /// The agent's `DaemonSet` and its name, by the pod that the agent is. `None` only if the API
    /// server says that there is none.
    async fn daemon_set(&self, client: &Client) -> Result<(String, Option<DaemonSet>)> {
        let (Some(pod), Some(namespace)) = (&self.pod, &self.namespace) else {
            anyhow::bail!("the agent's own pod is not configured (POD_NAME, POD_NAMESPACE)");
        };
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let found = pods.get(pod).await.map_err(|error| api_error(&error));
        let found = found.with_context(|| format!("cannot get the pod {namespace}/{pod}"))?;
        let owners = found.metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|owner| owner.kind == "DaemonSet");
        let owner = owner.with_context(|| {
            format!(
                "the pod {namespace}/{pod} has no owner of kind \
                 DaemonSet"
            )
        })?;
        let name = format!("{namespace}/{}", owner.name);
        let sets = Api::<DaemonSet>::namespaced(client.clone(), namespace);
        let set = sets
            .get_opt(&owner.name)
            .await
            .map_err(|error| api_error(&error));
        let set = set.with_context(|| format!("cannot get the DaemonSet {name}"))?;
        Ok((name, set))
    }
}

fn full_name(set: &DaemonSet) -> String {
    format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any())
}

/// A client's error in words, with the API server's status code.
fn api_error(error: &kube::Error) -> Error {
    Error::msg(api::words(error))
}

/// Calls `note` with whether the object is deleted, or being deleted, each time that it changes.
async fn each_change<K>(api: Api<K>, name: &str, note: impl Fn(bool))
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
                note(object.is_none_or(|object| object.meta().deletion_timestamp.is_some()));
            }
            Err(error) if !has_warned => {
                has_warned = true;
                let (kind, problem) = (K::kind(&()), api::words(&error));
                warn!("cannot watch the agent's own {kind} {name}, retrying: {problem}");
            }
            Err(_again) => {}
        }
    }
}
