//! The agent ends: it is uninstalled only if its `DaemonSet` is gone or going, and pods stay captured.

use interceptor_tests::node::{Node, daemon_set};

use super::{expect_captured, new_node, of_mesh};

const WITH_OURS: [&str; 2] = ["ptp", "interceptor-cni"];

/// Which plugins are left once the agent has been told to end, after `change`.
fn plugins_after(change: impl FnOnce(&Node)) -> Vec<String> {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    assert_eq!(node.runtime.plugins().expect("plugins"), WITH_OURS);
    change(&node);
    let status = agent.terminate().expect("it ends");
    assert!(status.success(), "{status}\n{}", agent.log());
    expect_captured(&pod);
    node.runtime.plugins().expect("plugins")
}

#[test]
fn the_plugin_stays_while_the_daemon_set_is_there() {
    assert_eq!(plugins_after(|_| {}), WITH_OURS);
}

#[test]
fn the_plugin_stays_if_nobody_knows() {
    assert_eq!(
        plugins_after(|node| node.api.set_unavailable(true)),
        WITH_OURS
    );
}

/// As when the rights are deleted before the agent: who may not ask does not know.
#[test]
fn the_plugin_stays_if_the_agent_may_not_ask() {
    assert_eq!(
        plugins_after(|node| node.api.allow_only(Vec::new())),
        WITH_OURS
    );
}

#[test]
fn the_plugin_goes_with_the_daemon_set() {
    let going = |node: &Node| drop(node.api.put(daemon_set(true)).expect("changed"));
    assert_eq!(plugins_after(going), ["ptp"]);
    let gone = |node: &Node| {
        let removed = node
            .api
            .remove("apps/v1", "DaemonSet", "mesh", "interceptor");
        assert!(removed.expect("a kind"));
    };
    assert_eq!(plugins_after(gone), ["ptp"]);
}

/// The second waits, and takes over when the first has ended.
#[test]
fn of_two_agents_one_waits() {
    let node = new_node();
    let mut first = node.start_ready_agent(&[]).expect("an agent");
    let mut second = node.start_agent(&[]).expect("another");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    assert!(second.is_running().expect("a process"), "{}", second.log());
    let (status, why) = second.get("/readyz").expect("an answer");
    assert_eq!(status, 503, "{why}");
    first.kill().expect("killed");
    second.wait_until_ready().expect("its turn");
    let another = node.run(of_mesh(&node, "another")).expect("a pod");
    expect_captured(&another);
    expect_captured(&pod);
}
