//! The kubelets of the cluster's nodes.

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1 as k8s;
use kube::{
    Api, Client,
    api::{ApiResource, ListParams},
    core::Object,
    runtime::watcher,
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    native::{Kubelet, Kubelets, Version},
    objects,
};

/// A node, without the parts that are not used: most of it is a list of images.
type Node = Object<Option<IgnoredAny>, Status>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    node_info: Option<NodeInfo>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfo {
    kubelet_version: String,
}

fn api(client: Client) -> Api<Node> {
    Api::all_with(client, &ApiResource::erase::<k8s::Node>(&()))
}

/// The kubelets of all nodes, where native sidecars require the version `minimum`.
pub(super) async fn kubelets(client: Client, minimum: Version) -> kube::Result<Kubelets> {
    let nodes = api(client).list(&ListParams::default()).await?;
    Ok(Kubelets::of(
        nodes.items.iter().filter_map(kubelet),
        minimum,
    ))
}

/// The same after each change.
pub(super) fn watch_kubelets(
    client: Client,
    minimum: Version,
) -> impl Stream<Item = watcher::Result<Kubelets>> {
    let kubelets = objects::watch_all(api(client), |node: Node| kubelet(&node));
    kubelets.map(move |kubelets| Ok(Kubelets::of(kubelets?.into_values(), minimum)))
}

/// A node that has not reported its version yet runs no pods.
fn kubelet(node: &Node) -> Option<Kubelet> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    let name = node.metadata.name.as_deref().unwrap_or_default();
    Some(Kubelet::new(name, &info.kubelet_version))
}
