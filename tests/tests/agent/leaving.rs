//! The agent ends: it is uninstalled only if its `DaemonSet` is gone or going, and pods stay captured.

use interceptor_tests::{bpf::pins, lab::cookie, manifests, node::Node};
use serde_json::{Value, json};

use super::{expect_captured, new_node, of_mesh};

const WITH_OURS: [&str; 2] = ["ptp", "interceptor-cni"];

/// What is deployed of this kind.
fn deployed(kind: &str) -> &'static Value {
    manifests::only(manifests::base().expect("a base"), kind).expect("one")
}

fn delete(node: &Node, kind: &str) {
    node.api.delete(deployed(kind)).expect("deleted");
}

/// Whether the plugin is uninstalled once the agent has been told to end, after `change`.
fn is_uninstalled_after(change: impl FnOnce(&Node)) -> bool {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    let cookie = cookie(pod.netns().expect("a netns")).expect("a cookie");
    assert_eq!(node.runtime.plugins().expect("plugins"), WITH_OURS);
    change(&node);
    let status = agent.terminate().expect("it ends");
    assert!(status.success(), "{status}\n{}", agent.log());
    expect_captured(&pod);
    let network = node.runtime.network().expect("a network");
    let is_uninstalled = network["plugins"][1]["uninstalled"] == true;
    // While the pod is captured, the plugin stays where it hears of the pod's end.
    assert_eq!(node.runtime.plugins().expect("plugins"), WITH_OURS);
    let socket = node.folder().join("agent.sock");
    let lock = node.folder().join("agent.sock.lock");
    assert_eq!([socket.exists(), lock.exists()], [!is_uninstalled; 2]);
    if is_uninstalled {
        node.delete(pod).expect("deleted");
        let pins = pins::of_netns(cookie);
        assert!(!pins.exists(), "{}", pins.display());
    }
    is_uninstalled
}

#[test]
fn the_plugin_stays_while_the_daemon_set_is_there() {
    assert!(!is_uninstalled_after(|_| {}));
}

#[test]
fn the_plugin_stays_if_nobody_knows() {
    assert!(!is_uninstalled_after(|node| node.api.set_unavailable(true)));
}

/// As when the rights are deleted before the agent: who may not ask does not know.
#[test]
fn the_plugin_stays_if_the_agent_may_not_ask() {
    assert!(!is_uninstalled_after(|node| {
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            delete(node, kind);
        }
    }));
}

#[test]
fn the_plugin_goes_with_the_daemon_set() {
    let going = |node: &Node| {
        let mut set = deployed("DaemonSet").clone();
        set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        node.api.put(set).expect("changed");
    };
    assert!(is_uninstalled_after(going));
    let gone = |node: &Node| delete(node, "DaemonSet");
    assert!(is_uninstalled_after(gone));
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
