//! Commands on the node know the names of pods that the agent has captured, without the agent.

use std::process::Output;

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    node::{REMOTE, STRAIGHT},
};
use serde_json::{Value, json};

use super::{dialled, expect_captured, new_node, of_mesh};

/// The output of a command about the pod `web`.
fn of_web(command: &[&str]) -> String {
    let mut interceptor = bounded(interceptor::binary());
    interceptor.args(command);
    let Output {
        status,
        stdout,
        stderr,
    } = output(&mut interceptor, "").expect("a command");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(0), "{command:?}: {stderr}");
    String::from_utf8(stdout).expect("text")
}

#[test]
fn commands_name_pods_of_the_agent() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    // No other test has a pod of this name.
    let pod = node.run(of_mesh(&node, "named")).expect("a pod");
    expect_captured(&pod);
    drop(agent);
    let name = format!("{}/{}", pod.manifest.namespace, pod.manifest.name);
    let pods: Vec<Value> =
        serde_json::from_str(&of_web(&["status", &name, "-o", "json"])).expect("JSON");
    let names: Vec<_> = pods.iter().map(|pod| &pod["pod"]["name"]).collect();
    assert_eq!(names, [&json!(pod.manifest.name)]);
    assert!(of_web(&["status", &name]).contains(&name));
    let as_in_istioctl = format!("{}.{}", pod.manifest.name, pod.manifest.namespace);
    let explained = of_web(&["explain", &as_in_istioctl, "--to", REMOTE]);
    assert!(explained.starts_with("CAPTURED"), "{explained}");
    of_web(&["detach", &name]);
    assert_eq!(dialled(&pod), STRAIGHT);
}

#[test]
fn an_unknown_name_is_an_error() {
    let _node = new_node();
    let mut status = bounded(interceptor::binary());
    status.args(["status", "no-such-namespace/web"]);
    let Output { status, stderr, .. } = output(&mut status, "").expect("a command");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("is named no-such-namespace/web"),
        "{stderr}"
    );
}
