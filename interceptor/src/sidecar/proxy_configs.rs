//! Istio's resources of kind `ProxyConfig`. A cluster may not have this kind, and not every user may
//! read it.

use std::fmt;

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
    runtime::watcher,
};
use serde_json::{Value, json};

use super::objects;

/// The label of a resource that is for one revision only.
const REVISION: &str = "istio.io/rev";

/// Why there are none to read. Pods are injected without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// The cluster does not have the kind, and so no object of it.
    NoKind,
    /// The user has no right to read them.
    NoRight,
}

impl Absence {
    fn of(error: &kube::Error) -> Option<Self> {
        let kube::Error::Api(status) = error else {
            return None;
        };
        match status.code {
            404 => Some(Self::NoKind),
            403 => Some(Self::NoRight),
            _ => None,
        }
    }

    fn of_watch(error: &watcher::Error) -> Option<Self> {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of(error),
            watcher::Error::WatchError(status) if status.code == 403 => Some(Self::NoRight),
            _ => None,
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoKind => {
                "the cluster has no resource proxyconfigs.networking.istio.io (v1beta1): to use \
                 ProxyConfigs, install Istio's CRDs"
            }
            Self::NoRight => {
                "no right to list and watch proxyconfigs.networking.istio.io: if the cluster has \
                 ProxyConfigs, grant it as deploy/components/istio-configuration/rbac.yaml does"
            }
        })
    }
}

fn api(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1beta1", "ProxyConfig");
    let resource = ApiResource::from_gvk_with_plural(&kind, "proxyconfigs");
    Api::all_with(client, &resource)
}

/// All resources.
pub(super) async fn list(client: Client) -> kube::Result<Result<Vec<Value>, Absence>> {
    match api(client).list(&ListParams::default()).await {
        Ok(list) => Ok(Ok(list.items.into_iter().map(kept).collect())),
        Err(error) => Absence::of(&error).map(Err).ok_or(error),
    }
}

/// All resources, after each change. When they become readable, they are listed.
pub(super) fn watch(
    client: Client,
) -> impl Stream<Item = watcher::Result<Result<Vec<Value>, Absence>>> {
    let resources = objects::watch_all(api(client), |object| Some(kept(object)));
    resources.map(|resources| match resources {
        Ok(resources) => Ok(Ok(resources.into_values().collect())),
        Err(error) => Absence::of_watch(&error).map(Err).ok_or(error),
    })
}

/// What a configuration depends on.
fn kept(object: DynamicObject) -> Value {
    let metadata = object.metadata;
    let mut labels = metadata.labels.unwrap_or_default();
    labels.retain(|name, _| name == REVISION);
    json!({
        "metadata": {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "creationTimestamp": metadata.creation_timestamp,
            "labels": labels,
        },
        "spec": object.data["spec"],
    })
}
