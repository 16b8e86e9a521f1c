//! Which pods start uncaptured if those of other runtimes are to.

use std::time::{Duration, Instant};

use interceptor_testkit::{
    lab::wait_until,
    node::{Node, STRAIGHT},
};
use serde_json::json;

use super::{dialled, expect_captured, new_node, of_mesh};

const SKIP: [&str; 2] = ["--unsupported-runtime-policy", "Ignore"];

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
fn a_pod_with_its_own_kernel_starts_if_the_policy_says_so() {
    let node = new_node();
    put_class(&node, "gvisor", "runsc");
    let _agent = node.start_ready_agent(&SKIP).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("gvisor");
    let pod = node.run(manifest).expect("it starts");
    assert_eq!(dialled(&pod), STRAIGHT);
}

#[test]
fn a_pod_refused_for_another_reason_still_does_not_start() {
    let node = new_node();
    let agent = node.start_ready_agent(&SKIP).expect("an agent");
    let ports = "traffic.sidecar.istio.io/includeInboundPorts";
    let wrong = of_mesh(&node, "wrong").annotate(ports, "http");
    let unknown = of_mesh(&node, "unknown").with_runtime_class("gone");
    for (manifest, told) in [(wrong, ports), (unknown, "gone")] {
        let mut pod = node.schedule(manifest).expect("a pod");
        let refused = pod.start_sandbox(&node);
        let reason = format!("{:#}", refused.expect_err(&agent.log()));
        assert!(reason.contains(told), "{reason}");
    }
}

/// Every one of these classes is asked for, and slowly answered.
#[test]
fn pods_of_classes_that_have_to_be_asked_for_hold_up_no_others() {
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
    let begun = Instant::now();
    let agent = node.start_agent(&["--no-cni"]).expect("an agent");
    let captured = || agent.metric(r#"interceptor_pods{state="captured"}"#);
    let done = wait_until("the last pod", || {
        // Nobody answers yet when it has just been started.
        Ok(captured().ok().flatten() == Some(1.0))
    });
    done.unwrap_or_else(|error| {
        panic!(
            "{error}
{}",
            agent.log()
        )
    });
    let took = begun.elapsed();
    assert!(took < DELAY * CLASSES / 2, "{took:?}\n{}", agent.log());
}

/// The object of the pod does not change, only what is known of its class does.
#[test]
fn a_class_that_is_there_by_the_next_attempt_lets_the_pod_start() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("late");
    let mut pod = node.schedule(manifest).expect("a pod");
    pod.start_sandbox(&node)
        .expect_err("the class is not there");
    put_class(&node, "late", "runc");
    let started = pod.start_sandbox(&node);
    started.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
    pod.start_proxy(&node).expect("the proxy");
    pod.start_app(&node).expect("the app");
    expect_captured(&pod);
}
