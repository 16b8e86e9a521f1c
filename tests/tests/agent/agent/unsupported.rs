//! Pods of unsupported runtimes, and the unsupported runtime policy.

use std::time::{Duration, Instant};

use interceptor_testkit::{
    lab::wait_until,
    node::{Node, STRAIGHT},
};
use serde_json::json;

use super::{dialled, expect_captured, new_node, of_mesh};

const IGNORE: [&str; 2] = ["--unsupported-runtime-policy", "Ignore"];

fn put_class(node: &Node, name: &str, handler: &str) {
    let class = json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler,
    });
    node.api.put(class).expect("a class");
}

#[test]
fn a_pod_with_its_own_kernel_starts_with_policy_ignore() {
    let node = new_node();
    put_class(&node, "gvisor", "runsc");
    let _agent = node.start_ready_agent(&IGNORE).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("gvisor");
    let pod = node.run(manifest).expect("it starts");
    assert_eq!(dialled(&pod), STRAIGHT);
}

#[test]
fn a_pod_refused_for_another_reason_still_does_not_start() {
    let node = new_node();
    let agent = node.start_ready_agent(&IGNORE).expect("an agent");
    let ports = "traffic.sidecar.istio.io/includeInboundPorts";
    let wrong = of_mesh(&node, "wrong").annotate(ports, "http");
    let unknown = of_mesh(&node, "unknown").with_runtime_class("gone");
    for (manifest, word) in [(wrong, ports), (unknown, "gone")] {
        let mut pod = node.schedule(manifest).expect("a pod");
        let refused = pod.start_sandbox(&node);
        let reason = format!("{:#}", refused.expect_err(&agent.log()));
        assert!(reason.contains(word), "{reason}");
    }
}

/// Every one of these classes is looked up at a slow API server.
#[test]
fn lookups_of_runtime_classes_do_not_delay_other_pods() {
    const CLASSES: u32 = 12;
    const DELAY: Duration = Duration::from_secs(2);
    let node = new_node();
    let mut pods: Vec<_> = (0..CLASSES)
        .map(|number| {
            let manifest = of_mesh(&node, &format!("a-{number}"));
            let manifest = manifest.with_runtime_class(&format!("gone-{number}"));
            node.schedule(manifest).expect("a pod")
        })
        .collect();
    let mut last = node.schedule(of_mesh(&node, "z")).expect("a pod");
    last.start_light_sandbox(&node, 1).expect("a sandbox");
    node.report_running(&last).expect("reported");
    pods.push(last);
    node.api.delay(DELAY);
    let start = Instant::now();
    let agent = node.start_agent(&["--no-cni"]).expect("an agent");
    let captured = || agent.metric(r#"interceptor_pods{state="captured"}"#);
    let done = wait_until("the last pod", || {
        // The agent does not listen yet just after its start.
        Ok(captured().ok().flatten() == Some(1.0))
    });
    done.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let took = start.elapsed();
    assert!(took < DELAY * CLASSES / 2, "{took:?}\n{}", agent.log());
}

/// The pod's object does not change, only its class.
#[test]
fn a_class_that_exists_at_the_next_attempt_lets_the_pod_start() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("late");
    let mut pod = node.schedule(manifest).expect("a pod");
    pod.start_sandbox(&node)
        .expect_err("the class does not exist");
    put_class(&node, "late", "runc");
    let started = pod.start_sandbox(&node);
    started.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
    pod.start_proxy(&node).expect("the proxy");
    pod.start_app(&node).expect("the app");
    expect_captured(&pod);
}
