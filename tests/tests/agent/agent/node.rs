//! The test node has the layout of a real node, and is removed with the test.

use std::{fs, path::PathBuf};

use interceptor_testkit::{
    lab::dial,
    node::{Driver, Manifest, Node, Pod, REMOTE, STRAIGHT},
};

fn run(node: &Node) -> Pod {
    let manifest = Manifest::of_mesh("web", &node.new_uid());
    node.run(manifest).expect("a pod")
}

/// The cgroup of a process, below the node's own.
fn cgroup_of(node: &Node, pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("a cgroup");
    let name = node
        .cgroup
        .path()
        .file_name()
        .expect("a name")
        .to_string_lossy();
    let (_, below) = path
        .split_once(&format!("{name}/"))
        .expect("below the node's");
    below.to_owned()
}

#[test]
fn pods_have_the_cgroups_of_kubelet() {
    for (driver, expected) in [
        (
            Driver::Systemd,
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-",
        ),
        (
            Driver::NestedSystemd,
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
             kubelet-kubepods-burstable-podUID.slice/cri-containerd-",
        ),
        (Driver::Cgroupfs, "kubepods/burstable/podUID/"),
    ] {
        let node = Node::new(driver).expect("a node");
        let pod = run(&node);
        let pid = pod.app().expect("the app").pid();
        let mut uid = pod.manifest.uid.clone();
        if driver != Driver::Cgroupfs {
            uid = uid.replace('-', "_");
        }
        let expected = expected.replace("UID", &uid);
        let cgroup = cgroup_of(&node, pid);
        assert!(cgroup.starts_with(&expected), "{cgroup}");
    }
}

#[test]
fn uncaptured_pods_reach_the_servers_that_they_dial() {
    let node = Node::new(Driver::Systemd).expect("a node");
    let pod = run(&node);
    let answer = dial(pod.app().expect("the app"), REMOTE).expect("a call");
    assert_eq!(answer, STRAIGHT);
    for address in pod.addresses().expect("addresses") {
        let to = std::net::SocketAddr::from((address, 8080)).to_string();
        assert_eq!(dial(&node.client, &to).expect("a call"), "app:8080");
    }
}

#[test]
fn a_container_that_is_replaced_keeps_the_network() {
    let node = Node::new(Driver::Systemd).expect("a node");
    let mut pod = run(&node);
    let old = cgroup_of(&node, pod.app().expect("the app").pid());
    let addresses = pod.addresses().expect("addresses");
    pod.start_app(&node).expect("another app");
    let new = cgroup_of(&node, pod.app().expect("the app").pid());
    assert_ne!(old, new);
    assert!(!node.cgroup.path().join(old).exists());
    assert_eq!(pod.addresses().expect("addresses"), addresses);
    assert_eq!(
        dial(pod.app().expect("the app"), REMOTE).expect("a call"),
        STRAIGHT
    );
}

#[test]
fn a_new_sandbox_of_a_pod_has_another_network() {
    let node = Node::new(Driver::Systemd).expect("a node");
    let mut pod = run(&node);
    let (id, cgroup) = (
        pod.sandbox_id().expect("an ID").to_owned(),
        pod.cgroup().to_owned(),
    );
    pod.stop_sandbox(&node).expect("stopped");
    // kubelet repeats the call.
    pod.del_again(&node, &id).expect("once more");
    pod.start_sandbox(&node).expect("a sandbox");
    pod.start_app(&node).expect("the app");
    assert_ne!(pod.sandbox_id().expect("an ID"), id);
    assert_eq!(pod.cgroup(), cgroup);
    assert_eq!(
        dial(pod.app().expect("the app"), REMOTE).expect("a call"),
        STRAIGHT
    );
}

#[test]
fn a_node_leaves_nothing_behind() {
    let node = Node::new(Driver::Systemd).expect("a node");
    let pod = run(&node);
    let left: Vec<PathBuf> = vec![node.dir().to_owned(), node.cgroup.path().to_owned()];
    let object = || node.api.get("v1", "Pod", "shop", "web");
    assert!(object().is_some());
    let own = pod.cgroup().to_owned();
    node.delete(pod).expect("deleted");
    assert!(object().is_none());
    assert!(!own.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let dir = node.dir().display().to_string();
    assert!(!mounts.contains(&format!("{dir}/")), "{mounts}");
    drop(node);
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
}
