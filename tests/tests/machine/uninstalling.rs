//! The Job that detaches running pods leaves nothing of ours on the node.

use std::fs;

use interceptor_tests::{
    lab::dial,
    manifests,
    node::{CAPTURED, Driver, Manifest, Node, Pod, REMOTE, STRAIGHT},
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
    let said = node.run_job("examples/uninstall-now").expect("the Job");
    for pod in &pods {
        let uid = &pod.manifest.uid;
        assert!(said.contains(uid), "{uid} is not named in: {said}");
        assert_eq!(dialled(pod), STRAIGHT);
    }
    expect_nothing_left();
    assert_eq!(node.runtime.plugins().expect("plugins"), ["ptp"]);
    assert!(!node.runtime.bin.join("interceptor-cni").exists());
    let networks = fs::read_dir(&node.runtime.conf).expect("a directory");
    assert_eq!(networks.count(), 1);
    assert_eq!(dialled(&run(&node, "new")), STRAIGHT);
}
