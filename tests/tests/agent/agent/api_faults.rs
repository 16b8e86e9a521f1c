//! Faults of the API server: captured pods stay captured, and new pods are found.

use std::time::Duration;

use interceptor_testkit::node::Node;

use super::{expect_captured, new_node, of_mesh, until_captured};

/// Captures a pod, causes `fault`, and starts another pod, which only the API reports.
fn expect_undisturbed(fault: impl Fn(&Node), recover: impl Fn(&Node)) {
    let node = new_node();
    let agent = node.start_ready_agent(&["--no-cni"]).expect("an agent");
    let first = node.run(of_mesh(&node, "first")).expect("a pod");
    until_captured(&first, || agent.log());
    fault(&node);
    let second = node.run(of_mesh(&node, "second")).expect("a pod");
    expect_captured(&first);
    recover(&node);
    until_captured(&second, || agent.log());
    expect_captured(&first);
}

#[test]
fn expired_resource_versions_do_not_matter() {
    expect_undisturbed(|node| node.api.expire(), |_| {});
}

#[test]
fn disconnections_do_not_matter() {
    expect_undisturbed(|node| node.api.disconnect(), |_| {});
}

#[test]
fn a_disconnection_without_watch_history_does_not_matter() {
    let fault = |node: &Node| {
        node.api.forget();
        node.api.disconnect();
    };
    expect_undisturbed(fault, |_| {});
}

#[test]
fn slow_responses_do_not_matter() {
    let fault = |node: &Node| {
        node.api.delay(Duration::from_millis(500));
        node.api.expire();
    };
    expect_undisturbed(fault, |node| node.api.delay(Duration::ZERO));
}

#[test]
fn a_temporarily_unavailable_server_does_not_matter() {
    let fault = |node: &Node| {
        node.api.set_unavailable(true);
        node.api.expire();
    };
    expect_undisturbed(fault, |node| node.api.set_unavailable(false));
}
