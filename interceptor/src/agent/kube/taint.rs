//! Removes the taint that keeps pods off the node until they can be captured there.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::api_server;

/// Delay after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Removes the taint `key` from the node `name`, with retries.
pub async fn remove(client: Client, name: &str, key: &str) {
    let nodes: Api<Node> = Api::all(client);
    while let Err(error) = try_remove(&nodes, name, key).await {
        let problem = api_server::error_text(&error);
        warn!("cannot remove the taint {key} from node {name}, retrying: {problem}");
        sleep(RETRY_INTERVAL).await;
    }
}

async fn try_remove(nodes: &Api<Node>, name: &str, key: &str) -> kube::Result<()> {
    let node = nodes.get(name).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let Some(patch) = patch(&taints, key) else {
        return Ok(());
    };
    let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
    let patch = Patch::<Node>::Json(patch);
    nodes.patch(name, &PatchParams::default(), &patch).await?;
    info!("removed the taint {key} from node {name}");
    Ok(())
}

/// A JSON patch that removes the taint, and fails if another client has changed the taints.
fn patch(taints: &[Taint], key: &str) -> Option<Value> {
    let kept: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
    (kept.len() < taints.len()).then(|| {
        json!([
            { "op": "test", "path": "/spec/taints", "value": taints },
            { "op": "replace", "path": "/spec/taints", "value": kept },
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        }
    }

    #[test]
    fn only_our_taint_is_removed_and_only_if_taints_are_unchanged() {
        let patch = patch(&[taint("a"), taint("ours")], "ours").unwrap();
        let expected = json!([
            { "op": "test", "path": "/spec/taints", "value": [
                { "key": "a", "effect": "NoSchedule" },
                { "key": "ours", "effect": "NoSchedule" },
            ] },
            { "op": "replace", "path": "/spec/taints", "value": [
                { "key": "a", "effect": "NoSchedule" },
            ] },
        ]);
        assert_eq!(patch, expected);
    }

    #[test]
    fn a_node_without_our_taint_is_not_patched() {
        assert_eq!(patch(&[taint("a")], "ours"), None);
    }
}
