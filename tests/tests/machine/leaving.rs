//! An uninstalled node: the last captured pod removes everything.

use std::fs;

use interceptor_testkit::{
    bpf::pins,
    lab::{cookie, dial, stderr_of},
    machine::Exclusive,
    node::{CAPTURED, Driver, Manifest, Node, Pod, REMOTE, STRAIGHT},
};

use crate::{alone, expect_nothing_left, interceptor};

fn dialled(pod: &Pod) -> String {
    dial(pod.app().expect("the app"), REMOTE).expect("a call")
}

fn run(node: &Node, name: &str) -> Pod {
    let manifest = Manifest::of_mesh(name, &node.new_uid());
    node.run(manifest).expect("a pod that starts")
}

/// `interceptor uninstall --node`, after the agent was killed.
fn uninstall(node: &Node) -> String {
    let mut command = interceptor(&["uninstall", "--node"]);
    command.arg("--cni-conf-dir").arg(&node.runtime.conf);
    command.arg("--cni-bin-dir").arg(&node.runtime.bin);
    stderr_of(&mut command).expect("uninstalled")
}

/// A node whose agent has captured a pod and was killed, and which is now uninstalled.
fn uninstalled(alone: &Exclusive) -> (Node, Pod) {
    let node = Node::alone(Driver::Systemd, alone).expect("a node");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = run(&node, "web");
    assert_eq!(dialled(&pod), CAPTURED);
    agent.kill().expect("killed");
    let printed = uninstall(&node);
    assert!(printed.contains("until the last captured pod"), "{printed}");
    for left in ["agent.sock", "agent.sock.lock"] {
        assert!(!node.dir().join(left).exists(), "{left}");
    }
    (node, pod)
}

#[track_caller]
fn expect_clean(node: &Node) {
    expect_nothing_left();
    assert_eq!(node.runtime.plugins().expect("plugins"), ["ptp"]);
    let binary = node.runtime.bin.join("interceptor-cni");
    assert!(!binary.exists());
    let files = fs::read_dir(&node.runtime.conf).expect("a directory");
    assert_eq!(files.count(), 1);
}

#[test]
fn the_last_captured_pod_removes_everything() {
    let alone = alone();
    let (node, pod) = uninstalled(&alone);
    let new = run(&node, "new");
    assert_eq!(dialled(&new), STRAIGHT);
    assert_eq!(dialled(&pod), CAPTURED);
    node.delete(new).expect("deleted");
    assert_eq!(dialled(&pod), CAPTURED);
    node.delete(pod).expect("deleted");
    expect_clean(&node);
    assert_eq!(dialled(&run(&node, "newer")), STRAIGHT);
}

/// One after the other, each removes its own parts.
#[test]
fn a_deleted_pod_does_not_affect_others() {
    let alone = alone();
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pods = ["first", "second"].map(|name| run(&node, name));
    agent.kill().expect("killed");
    uninstall(&node);
    let [first, second] = pods;
    let own = pins::of_netns(cookie(first.netns().expect("a netns")).expect("a cookie"));
    assert!(own.exists());
    node.delete(first).expect("deleted");
    assert!(!own.exists(), "{}", own.display());
    assert_eq!(dialled(&second), CAPTURED);
    node.delete(second).expect("deleted");
    expect_clean(&node);
}

/// As after a reboot: nothing is pinned, and the next pod that starts removes the plugin.
#[test]
fn the_next_pod_removes_the_plugin_if_none_is_captured() {
    let alone = alone();
    let (node, pod) = uninstalled(&alone);
    stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    assert_eq!(dialled(&pod), STRAIGHT);
    assert_eq!(dialled(&run(&node, "new")), STRAIGHT);
    expect_clean(&node);
}

/// After a reinstallation of the agent the plugin captures pods again.
#[test]
fn a_reinstalled_agent_adopts_the_pods() {
    let alone = alone();
    let (node, pod) = uninstalled(&alone);
    let agent = node.start_ready_agent(&[]).expect("another agent");
    assert_eq!(dialled(&pod), CAPTURED);
    assert_eq!(dialled(&run(&node, "new")), CAPTURED, "{}", agent.log());
}
