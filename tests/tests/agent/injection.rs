//! Plain pods that the webhook injects with the built-in sidecar, run as processes on the node, and
//! captured by the agent: from the API server's call to the connection.

mod explained;
mod proxied;
mod started;

use interceptor_testkit::node::{APP_IMAGE, Driver, Node};
use serde_json::{Value, json};

/// The namespace whose pods are injected.
const NAMESPACE: &str = "shop";

fn new_node() -> Node {
    let node = Node::new(Driver::Systemd).expect("a node");
    node.enable_injection(NAMESPACE).expect("the manifests");
    node
}

/// A container of the app's image.
fn container(name: &str, words: &[&str]) -> Value {
    let command = format!("/usr/local/bin/{}", words[0]);
    json!({"name": name, "image": APP_IMAGE, "command": [command], "args": words[1..]})
}

/// A pod without any trace of a mesh.
fn plain(name: &str, containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {}},
        "spec": {"containers": containers, "restartPolicy": "Never"},
    })
}

/// The object that the API server stores, after the webhook's call.
fn create(node: &Node, pod: &Value) -> Value {
    let created = node.create(NAMESPACE, pod).expect("a call");
    created.unwrap_or_else(|refusal| panic!("{refusal}"))
}
