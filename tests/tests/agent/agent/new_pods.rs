//! New pods are captured.

use std::net::SocketAddr;

use interceptor_testkit::{
    lab::{dial, send_datagram, wait_until},
    node::{CAPTURED, Driver, Manifest, Node, REMOTE, STRAIGHT},
    tap::Tap,
    users::PROXY,
};
use serde_json::json;

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

/// At CNI ADD, the agent captures the pod before any process could connect: the first connection is
/// refused, as no proxy listens yet, and does not pass.
#[test]
fn a_new_pod_is_captured_before_its_first_connection() {
    for driver in [Driver::Systemd, Driver::NestedSystemd, Driver::Cgroupfs] {
        let node = Node::new(driver).expect("a node");
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let plugins = node.runtime.plugins().expect("plugins");
        assert_eq!(plugins, ["ptp", "interceptor-cni"]);
        let mut pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
        let started = pod.start_sandbox(&node);
        started.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
        pod.start_app(&node).expect("the app");
        assert_eq!(dialled(&pod), "ECONNREFUSED", "{}", agent.log());
        pod.start_proxy(&node).expect("the proxy");
        expect_captured(&pod);
        let address = pod.addresses().expect("addresses")[0];
        let to = SocketAddr::from((address, 8080)).to_string();
        let answer = dial(&node.client, &to).expect("a call");
        assert_eq!(answer, format!("proxy:15006 for {to}"));
    }
}

/// The proxy's listeners are older than the agent.
#[test]
fn a_pod_older_than_the_agent_is_captured_while_it_runs() {
    for driver in [Driver::Systemd, Driver::NestedSystemd, Driver::Cgroupfs] {
        let node = Node::new(driver).expect("a node");
        let pod = node.run(of_mesh(&node, "web")).expect("a pod");
        assert_eq!(dialled(&pod), STRAIGHT);
        let agent = node.start_agent(&[]).expect("an agent");
        until_captured(&pod, || agent.log());
    }
}

/// The pod's processes start after its object exists, without a call of the plugin.
#[test]
fn a_new_pod_without_a_cni_call_is_found_by_its_processes() {
    let node = new_node();
    let agent = node.start_ready_agent(&["--no-cni"]).expect("an agent");
    assert_eq!(node.runtime.plugins().expect("plugins"), ["ptp"]);
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    until_captured(&pod, || agent.log());
}

#[test]
fn only_pods_of_the_mesh_are_captured() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let plain = Manifest::plain("plain", &node.new_uid());
    let declined = of_mesh(&node, "declined").annotate("sidecar.istio.io/inject", "false");
    let systems = of_mesh(&node, "systems").in_namespace("kube-system");
    let others = [plain, declined, systems];
    let others = others.map(|manifest| node.run(manifest).expect("a pod"));
    let captured = node.run(of_mesh(&node, "captured")).expect("a pod");
    until_captured(&captured, || agent.log());
    for other in &others {
        let name = &other.manifest.name;
        assert_eq!(dialled(other), STRAIGHT, "{name}");
    }
}

/// End to end: one port is excluded, another is captured.
#[test]
fn annotations_configure_the_capture() {
    let node = new_node();
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    let excluding =
        of_mesh(&node, "excluding").annotate("traffic.sidecar.istio.io/excludeOutboundPorts", "80");
    let including = of_mesh(&node, "including").annotate(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "10.2.0.0/16",
    );
    let excluding = node.run(excluding).expect("a pod");
    let including = node.run(including).expect("a pod");
    assert_eq!(dialled(&excluding), STRAIGHT);
    let answer = dial(including.app().expect("the app"), REMOTE).expect("a call");
    assert_eq!(answer, CAPTURED);
}

/// The agent's setting is the default; the annotation of a pod takes precedence.
#[test]
fn strict_mode_is_set_for_the_node_or_by_annotation() {
    let node = new_node();
    let agent = node
        .start_ready_agent(&["--strict", "all"])
        .expect("an agent");
    let annotated = |name: &str, value| {
        let manifest = of_mesh(&node, name).annotate("interceptor.dev/strict", value);
        node.run(manifest).expect("a pod")
    };
    let by_default = node.run(of_mesh(&node, "by-default")).expect("a pod");
    let [tcp, off] = [annotated("tcp", "tcp"), annotated("off", "off")];
    let counters = [("refused", "udp dport 123"), ("passed", "udp dport 124")];
    let tap = Tap::at(&node.host, "prerouting", &counters).expect("a tap");
    for (pod, mode, port) in [
        (&by_default, "all", 123),
        (&tcp, "tcp", 124),
        (&off, "off", 124),
    ] {
        expect_captured(pod);
        let to = format!("10.2.0.9:{port}");
        send_datagram(pod.app().expect("the app"), &to).expect("sent");
        let name = &pod.manifest.name;
        let (_, status) = agent
            .api(&format!("/v1/pods/shop/{name}"))
            .expect("the status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let strict = status["settings"]["strict"].as_str().unwrap_or("off");
        assert_eq!(strict, mode, "{status:#}");
        let guarded = if mode == "off" {
            json!(null)
        } else {
            json!([{"interface": "eth0", "at": "node"}])
        };
        assert_eq!(status["uplinks"], guarded, "{status:#}");
    }
    wait_until("datagrams", || Ok(tap.packets("passed")? == 2)).expect("of two pods");
    assert_eq!(tap.packets("refused").expect("a count"), 0);
}

/// With `hostUsers: false`, the proxy's UID is relative to the pod's user namespace.
#[test]
fn the_uid_of_the_proxy_is_in_the_pods_user_namespace() {
    const FIRST: u32 = 200_000;

    let node = new_node();
    let mut there = node
        .run(of_mesh(&node, "there").with_ids_from(FIRST))
        .expect("a pod");
    assert_eq!(dialled(&there), STRAIGHT);
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&there, || agent.log());
    let manifest = of_mesh(&node, "by-cni").with_ids_from(FIRST + 65536);
    let mut by_cni = node.run(manifest).expect("a pod");
    for pod in [&mut there, &mut by_cni] {
        expect_captured(pod);
        let proxy = pod.container("proxy").expect("the proxy");
        assert_eq!(dial(proxy, REMOTE).expect("a call"), STRAIGHT);
        let address = pod.addresses().expect("addresses")[0];
        let to = SocketAddr::from((address, 8080)).to_string();
        let answer = dial(&node.client, &to).expect("a call");
        assert_eq!(answer, format!("proxy:15006 for {to}"));
        // The node's UID 1337 is another user in the pod.
        let own = pod.manifest.first_id.take();
        let stranger = pod.start_container(&node, "stranger", PROXY);
        let answer = dial(stranger.expect("a process"), REMOTE).expect("a call");
        assert_eq!(answer, CAPTURED, "{own:?}");
    }
}

/// The watch has not reported the pod yet when the plugin is called: the agent looks it up.
#[test]
fn a_pod_that_is_not_watched_yet_is_looked_up() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    node.api.set_unavailable(true);
    node.api.disconnect();
    let mut pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
    node.api.set_unavailable(false);
    let started = pod.start_sandbox(&node);
    started.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
    pod.start_app(&node).expect("the app");
    assert_eq!(dialled(&pod), "ECONNREFUSED");
}
