//! Pods that cannot be captured do not start, with a reason.

use interceptor_testkit::lab::wait_until;
use serde_json::json;

use super::{new_node, of_mesh};

#[test]
fn a_runtime_with_its_own_kernel_is_refused_with_an_event() {
    let node = new_node();
    let class = json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "gvisor"},
        "handler": "runsc",
    });
    node.api.put(class).expect("a class");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("gvisor");
    let mut pod = node.schedule(manifest).expect("a pod");
    let refused = pod.start_sandbox(&node).expect_err("it cannot be captured");
    let reason = format!("{refused:#}");
    assert!(reason.contains("runsc"), "{reason}");
    let found = wait_until("an Event", || Ok(!node.api.events_about("web").is_empty()));
    found.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let events = node.api.events_about("web");
    assert_eq!(events[0]["type"], "Warning", "{events:?}");
    assert!(events[0].to_string().contains("runsc"), "{events:?}");
}
