//! Every way to uninstall the agent finally leaves nothing of ours on the node.

use std::fs;

use interceptor_testkit::{
    lab::{dial, wait_until},
    manifests,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, Pod, REMOTE, STRAIGHT},
};

use crate::{alone, expect_nothing_left};

fn run(node: &Node, name: &str) -> Pod {
    let manifest = Manifest::of_mesh(name, &node.new_uid());
    node.run(manifest).expect("a pod")
}

fn dialled(pod: &Pod) -> String {
    dial(pod.app().expect("the app"), REMOTE).expect("a call")
}

#[test]
fn after_the_job_that_detaches_nothing_is_left_and_pods_start() {
    let alone = alone();
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pods = ["web", "shop"].map(|name| run(&node, name));
    for pod in &pods {
        assert_eq!(dialled(pod), CAPTURED);
    }
    agent.kill().expect("killed");
    for object in manifests::base().expect("a base") {
        node.api.delete(object).expect("deleted");
    }
    let printed = node.run_job("examples/uninstall-now").expect("the Job");
    for pod in &pods {
        let uid = &pod.manifest.uid;
        assert!(printed.contains(uid), "{uid} is not named in: {printed}");
        assert_eq!(dialled(pod), STRAIGHT);
    }
    expect_clean(&node);
    assert_eq!(dialled(&run(&node, "new")), STRAIGHT);
}

#[track_caller]
fn expect_clean(node: &Node) {
    expect_nothing_left();
    assert_eq!(node.runtime.plugins().expect("plugins"), ["ptp"]);
    assert!(!node.runtime.bin.join("interceptor-cni").exists());
    let networks = fs::read_dir(&node.runtime.conf).expect("a directory");
    assert_eq!(networks.count(), 1);
    for left in ["agent.sock", "agent.sock.lock"] {
        assert!(!node.dir().join(left).exists(), "{left}");
    }
}

/// `uninstall` stops the agent; then a pod starts, and the captured one is deleted.
fn ends_clean(uninstall: impl FnOnce(&Node, &mut AgentProcess)) {
    let alone = alone();
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let captured = run(&node, "web");
    assert_eq!(dialled(&captured), CAPTURED);
    // Pods, the namespace, the ServiceAccount.
    wait_until("watches", || Ok(node.api.watches() == 3)).expect("watches");
    uninstall(&node, &mut agent);
    let new = run(&node, "new");
    assert_eq!(dialled(&new), STRAIGHT, "{}", agent.log());
    assert_eq!(dialled(&captured), CAPTURED);
    node.delete(captured).expect("deleted");
    expect_clean(&node);
    assert_eq!(dialled(&new), STRAIGHT);
}

fn delete(node: &Node, which: impl Fn(&str) -> bool) {
    for object in manifests::base().expect("a base") {
        if object["kind"].as_str().is_some_and(&which) {
            node.api.delete(object).expect("deleted");
        }
    }
}

#[test]
fn after_the_documented_commands_nothing_is_left() {
    ends_clean(|node, agent| {
        delete(node, |kind| kind == "DaemonSet");
        agent.terminate().expect("deleted");
        delete(node, |kind| kind != "DaemonSet");
    });
}

#[test]
fn after_a_plain_delete_nothing_is_left() {
    ends_clean(|node, agent| {
        delete(node, |_| true);
        agent.terminate().expect("deleted");
    });
}

#[test]
fn after_the_job_nothing_is_left() {
    ends_clean(|node, agent| {
        agent.kill().expect("killed");
        delete(node, |_| true);
        node.run_job("examples/uninstall").expect("the Job");
    });
}
