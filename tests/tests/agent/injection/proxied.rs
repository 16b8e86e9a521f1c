//! Connections of an injected pod through the real Envoy.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use interceptor_testkit::{
    actor::Actor,
    lab::wait_until,
    netns::Netns,
    node::{Node, ObjectPod, test_images},
    sidecar::{
        ClientView, RecordingServer,
        envoy::{INBOUND_CLUSTER, OUTBOUND_CLUSTER, connections_by_destination},
        send_http,
    },
};
use serde_json::{Value, json};

use super::{container, create, new_node, plain};

/// A server outside the pods.
const REMOTE: &str = "10.2.0.9:8000";
const REMOTE_PORT: u16 = 8000;

/// A pod with a server on port 8080, and an app that the test controls.
fn manifest(name: &str) -> Value {
    plain(
        name,
        &[
            container("server", &["app", "server", "web", "8080"]),
            container("app", &["actor", "here", "app"]),
        ],
    )
}

fn run(node: &Node, pod: &Value) -> (ObjectPod, Actor) {
    let created = create(node, pod);
    let images = test_images().expect("images");
    let mut pod = node.run_object(&created, images).expect("a pod");
    let app = pod.container("app").expect("the app");
    let actor = app.actor().expect("the app's pipes");
    // It listens a moment after its start. This request is not captured.
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let responds = || Ok(send_http(&actor, own)?.response.is_ok());
    wait_until("the server responds", responds).expect("a server");
    (pod, actor)
}

/// The connections of Envoy's clusters by their original destination.
fn seen(pod: &ObjectPod, cluster: &str) -> BTreeMap<SocketAddr, u32> {
    let netns = pod.pod.netns().expect("a sandbox").path();
    Netns::enter_at(netns, || connections_by_destination(cluster)).expect("Envoy's clusters")
}

fn response(view: &ClientView) -> (&str, SocketAddr) {
    let response = view.response.as_ref().expect("a response");
    (&response.server, response.peer)
}

/// Whether the server observes the socket of the client itself, and not one of a proxy.
fn is_direct(view: &ClientView) -> bool {
    response(view).1 == view.local
}

#[test]
fn an_injected_pod_is_captured_and_its_envoy_forwards() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let _webhook = node.start_webhook(&[]).expect("a webhook");
    let remote = RecordingServer::start(&node.host, "remote", REMOTE_PORT).expect("a server");
    let (mut pod, app) = run(&node, &manifest("web"));
    expect_injected_process(&mut pod);
    let to = REMOTE.parse().expect("an address");

    let view = send_http(&app, to).expect("a request");
    assert_eq!(
        response(&view).0,
        "remote:8000",
        "{view:?}\n{}",
        agent.log()
    );
    assert!(!is_direct(&view), "{view:?}");
    assert_eq!(view.peer, Some(to));
    assert_eq!(remote.clients(), [response(&view).1]);
    assert_eq!(seen(&pod, OUTBOUND_CLUSTER).get(&to), Some(&1));

    let own = SocketAddr::new(pod.ip().expect("an address"), 8080);
    let view = send_http(&node.client, own).expect("a request");
    let (server, peer) = response(&view);
    // The inbound side of the proxy connects from this address.
    assert_eq!(
        (server, peer.ip().to_string().as_str()),
        ("web:8080", "127.0.0.6")
    );
    assert_eq!(seen(&pod, INBOUND_CLUSTER).get(&own), Some(&1));
    // Agent and webhook requested nothing that their roles do not allow.
    let refused = node.api.refused();
    assert!(refused.is_empty(), "{refused:?}");
}

/// The proxy's process is what the injected container says.
fn expect_injected_process(pod: &mut ObjectPod) {
    let container = &pod.object["spec"]["initContainers"][0];
    assert_eq!(container["name"], "istio-proxy");
    let list = |field: &str| container[field].as_array().cloned().expect("a list");
    let words = list("command").into_iter().chain(list("args"));
    let expected: Vec<_> = words
        .map(|word| word.as_str().expect("text").replace("$$", "$"))
        .collect();
    let pid = pod.container("istio-proxy").expect("a proxy").pid();
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect(file);
    let command_line = read("cmdline");
    let command_line: Vec<_> = command_line.split_terminator('\0').collect();
    assert_eq!(command_line, expected);
    let status = read("status");
    for line in [
        "Uid:\t1337\t1337\t1337\t1337",
        "Gid:\t1337\t1337\t1337\t1337",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(
            status.lines().any(|found| found == line),
            "{line}: {status}"
        );
    }
    let mounts = read("mountinfo");
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    let options = root.and_then(|line| line.split(' ').nth(5));
    assert!(options.expect("a root").starts_with("ro"), "{mounts}");
}

#[test]
fn a_pod_whose_label_is_false_is_not_captured() {
    let node = new_node();
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    let _webhook = node.start_webhook(&[]).expect("a webhook");
    let remote = RecordingServer::start(&node.host, "remote", REMOTE_PORT).expect("a server");
    let mut manifest = manifest("web");
    manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    let (pod, app) = run(&node, &manifest);
    assert_eq!(pod.object["spec"].get("initContainers"), None);
    let view = send_http(&app, REMOTE.parse().expect("an address")).expect("a request");
    assert_eq!(response(&view).0, "remote:8000", "{view:?}");
    assert!(is_direct(&view), "{view:?}");
    assert_eq!(remote.clients(), [view.local]);
}
