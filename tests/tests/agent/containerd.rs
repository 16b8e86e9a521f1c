//! The node agent with a real container runtime: Debian's containerd receives CRI requests as from
//! kubelet, calls the plugins itself and runs real containers.

use std::{fs, net::SocketAddr};

use interceptor_testkit::{
    bpf::pins,
    containerd::{Containerd, Sandbox},
    interceptor,
    lab::{call, cookie, dial, echoes, wait_until},
    node::{CAPTURED, Driver, Manifest, NAMESPACE, Node, Pod, REMOTE, STRAIGHT},
};

/// A short timeout of the plugin, for tests without an agent.
const SHORT_TIMEOUT: &[&str] = &["--cni-wait-seconds", "1"];

fn new_node() -> (Node, Containerd) {
    let node = Node::new(Driver::Cgroupfs).expect("a node");
    let containerd = Containerd::start(&node).expect("containerd");
    (node, containerd)
}

fn schedule(node: &Node, name: &str) -> Pod {
    let manifest = Manifest::of_mesh(name, &node.new_uid());
    node.schedule(manifest).expect("a pod")
}

fn dialled(sandbox: &Sandbox<'_>) -> String {
    dial(sandbox.app().expect("the app"), REMOTE).expect("a call")
}

/// Starts the app before the proxy: its first connection is refused, and does not pass.
fn start_containers(sandbox: &mut Sandbox<'_>) {
    sandbox.start_app().expect("the app");
    assert_eq!(dialled(sandbox), "ECONNREFUSED");
    sandbox.start_proxy().expect("the proxy");
    assert_eq!(dialled(sandbox), CAPTURED);
}

/// Outbound and inbound. runc puts the app into the pod's cgroup. (`runc init` is there before it
/// enters the pod's network namespace: the agent must not attach the node's.)
#[test]
fn a_pod_is_captured_before_its_first_container_starts() {
    let (node, containerd) = new_node();
    let agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let pod = schedule(&node, "web");
    let sandbox = containerd.run_sandbox(&node, &pod, 0);
    let mut sandbox = sandbox.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
    start_containers(&mut sandbox);
    let to = SocketAddr::from((sandbox.address(), 8080)).to_string();
    let answer = dial(&node.client, &to).expect("a call");
    assert_eq!(answer, format!("proxy:15006 for {to}"));
    let own = pod.cgroup().join(sandbox.app_id().expect("the app"));
    let processes = fs::read_to_string(own.join("cgroup.procs")).expect("a cgroup");
    assert!(!processes.is_empty(), "{}", own.display());
    let nodes = pins::of_netns(cookie(&node.host).expect("a cookie"));
    assert!(!nodes.exists(), "{}", agent.log());
    let captured = agent.metric(r#"interceptor_pods{state="captured"}"#);
    assert_eq!(captured.expect("metrics"), Some(1.0));
}

/// kubelet restarts containers in the existing sandbox, without a call of the plugin.
#[test]
fn restarted_containers_stay_captured_without_the_agent() {
    let (node, containerd) = new_node();
    let mut agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let pod = schedule(&node, "web");
    let mut sandbox = containerd.run_sandbox(&node, &pod, 0).expect("a sandbox");
    start_containers(&mut sandbox);
    let app = sandbox.app_id().expect("the app").to_owned();
    sandbox.start_app().expect("another app");
    assert_ne!(sandbox.app_id().expect("the app"), app);
    assert_eq!(dialled(&sandbox), CAPTURED);
    let (open, _) = call(sandbox.app().expect("the app"), REMOTE).expect("a call");
    agent.kill().expect("killed");
    assert!(echoes(sandbox.app().expect("the app"), open).expect("an echo"));
    sandbox.start_proxy().expect("another proxy");
    sandbox.start_app().expect("another app");
    assert_eq!(dialled(&sandbox), CAPTURED);
}

/// No pins and no cgroups are left; the pod's next sandbox has another network namespace.
#[test]
fn a_removed_sandbox_leaves_nothing_and_the_next_is_captured() {
    let (node, containerd) = new_node();
    let agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let pod = schedule(&node, "web");
    for attempt in 0..2 {
        let sandbox = containerd.run_sandbox(&node, &pod, attempt);
        let mut sandbox = sandbox.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
        start_containers(&mut sandbox);
        let pins = pins::of_netns(sandbox.cookie().expect("a cookie"));
        assert!(pins.exists(), "{}", pins.display());
        sandbox.remove().expect("removed");
        let deleted = wait_until("the pins are deleted", || Ok(!pins.exists()));
        deleted.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
        let left = fs::read_dir(pod.cgroup()).expect("a cgroup").flatten();
        let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The runtime returns the reason to kubelet, which publishes an Event. The next attempt succeeds.
#[test]
fn without_the_agent_a_mesh_pod_fails_to_start_with_a_reason() {
    let (node, containerd) = new_node();
    let mut agent = containerd
        .start_ready_agent(&node, SHORT_TIMEOUT)
        .expect("an agent");
    agent.kill().expect("killed");
    let pod = schedule(&node, "web");
    let refused = containerd.run_sandbox(&node, &pod, 0).err();
    let reason = format!("{:#}", refused.expect("no sandbox"));
    for word in [
        "failed to setup network",
        "shop/web",
        "no agent listens at",
        "DaemonSet",
    ] {
        assert!(reason.contains(word), "no {word:?} in: {reason}");
    }
    let _agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let mut sandbox = containerd.run_sandbox(&node, &pod, 1).expect("a sandbox");
    start_containers(&mut sandbox);
}

/// As after a reboot: system pods and the agent's own pod do not wait for the agent.
#[test]
fn without_the_agent_excluded_pods_start() {
    let (node, containerd) = new_node();
    let mut agent = containerd
        .start_ready_agent(&node, SHORT_TIMEOUT)
        .expect("an agent");
    agent.kill().expect("killed");
    for (name, namespace) in [("dns", "kube-system"), ("interceptor-fghij", NAMESPACE)] {
        let manifest = Manifest::of_mesh(name, &node.new_uid()).in_namespace(namespace);
        let pod = node.schedule(manifest).expect("a pod");
        let mut sandbox = containerd.run_sandbox(&node, &pod, 0).expect("a sandbox");
        sandbox.start_app().expect("the app");
        assert_eq!(dialled(&sandbox), STRAIGHT, "{name}");
    }
}

/// containerd calls DEL when a sandbox is stopped, again when kubelet stops it again, and without a
/// network namespace when it is removed.
#[test]
fn a_sandbox_is_stopped_and_removed_without_the_agent() {
    let (node, containerd) = new_node();
    let mut agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let pod = schedule(&node, "web");
    let mut sandbox = containerd.run_sandbox(&node, &pod, 0).expect("a sandbox");
    start_containers(&mut sandbox);
    let pins = pins::of_netns(sandbox.cookie().expect("a cookie"));
    agent.kill().expect("killed");
    sandbox.stop().expect("stopped");
    sandbox.remove().expect("stopped again, and removed");
    let again = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let deleted = wait_until("the pins are deleted", || Ok(!pins.exists()));
    deleted.unwrap_or_else(|error| panic!("{error}\n{}", again.log()));
}

/// containerd calls the plugins of the current configuration when a sandbox is removed, not those of
/// the sandbox's creation: so an uninstalled plugin is still called.
#[test]
fn a_sandbox_on_an_uninstalled_node_removes_its_pins() {
    let (node, containerd) = new_node();
    let mut agent = containerd.start_ready_agent(&node, &[]).expect("an agent");
    let pod = schedule(&node, "web");
    let mut sandbox = containerd.run_sandbox(&node, &pod, 0).expect("a sandbox");
    start_containers(&mut sandbox);
    let pins = pins::of_netns(sandbox.cookie().expect("a cookie"));
    agent.kill().expect("killed");
    let [conf, bin] = [&node.runtime.conf, &node.runtime.bin].map(|path| path.to_string_lossy());
    let uninstall = [
        "uninstall",
        "--node",
        "--cni-conf-dir",
        &conf,
        "--cni-bin-dir",
        &bin,
    ];
    let output = interceptor::try_run(uninstall).expect("a run");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(dialled(&sandbox), CAPTURED);
    assert!(pins.exists(), "{}", pins.display());
    sandbox.remove().expect("removed");
    assert!(!pins.exists(), "{}", pins.display());
}

/// Processes, mounts and sockets of the runtime are removed with the node.
#[test]
fn the_runtime_leaves_nothing_behind() {
    let (node, containerd) = new_node();
    let pod = schedule(&node, "web");
    let mut sandbox = containerd.run_sandbox(&node, &pod, 0).expect("a sandbox");
    sandbox.start_app().expect("the app");
    assert_eq!(dialled(&sandbox), STRAIGHT);
    let left = [node.dir().to_owned(), node.cgroup.path().to_owned()];
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&left[0].display().to_string()), "{mounts}");
    drop(sandbox);
    drop(pod);
    drop(containerd);
    drop(node);
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
}
