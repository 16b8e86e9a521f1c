//! Connections that were open when a running pod was captured.

use std::net::SocketAddr;

use interceptor_testkit::{
    actor::{Actor, protocol::Handle},
    lab::{call, echoes, wait_until},
    node::{Node, Pod, REMOTE, STRAIGHT},
};

use super::{expect_captured, new_node, of_mesh, until_captured};

/// An uncaptured pod and its open connections: outbound, inbound, and the proxy's own.
struct Open {
    pod: Pod,
    outbound: Handle,
    inbound: Handle,
    of_proxy: Handle,
}

fn open(node: &Node) -> Open {
    let pod = node.run(of_mesh(node, "web")).expect("a pod");
    let called = |who: &Actor, to: &str, answered: &str| {
        let (socket, answer) = call(who, to).expect("a call");
        assert_eq!(answer, answered);
        socket
    };
    let address = pod.addresses().expect("addresses")[0];
    let inside = SocketAddr::from((address, 8080)).to_string();
    let proxy = pod.container("proxy").expect("the proxy");
    Open {
        outbound: called(pod.app().expect("the app"), REMOTE, STRAIGHT),
        inbound: called(&node.client, &inside, "app:8080"),
        of_proxy: called(proxy, REMOTE, STRAIGHT),
        pod,
    }
}

#[test]
fn with_close_connections_they_are_closed() {
    let node = new_node();
    let open = open(&node);
    let agent = node
        .start_agent(&["--close-connections"])
        .expect("an agent");
    until_captured(&open.pod, || agent.log());
    let closed = || agent.metric("interceptor_closed_connections_total");
    let counted = wait_until("both are closed", || Ok(closed()? == Some(2.0)));
    counted.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let app = open.pod.app().expect("the app");
    assert!(!echoes(app, open.outbound).expect("a result"));
    assert!(!echoes(&node.client, open.inbound).expect("a result"));
    expect_captured(&open.pod);
    // The proxy's own connections are never captured.
    let proxy = open.pod.container("proxy").expect("the proxy");
    assert!(echoes(proxy, open.of_proxy).expect("an echo"));
}

#[test]
fn by_default_they_stay_open() {
    let node = new_node();
    let open = open(&node);
    let agent = node.start_agent(&[]).expect("an agent");
    until_captured(&open.pod, || agent.log());
    let app = open.pod.app().expect("the app");
    let proxy = open.pod.container("proxy").expect("the proxy");
    for (who, socket) in [
        (app, open.outbound),
        (&node.client, open.inbound),
        (proxy, open.of_proxy),
    ] {
        assert!(echoes(who, socket).expect("an echo"));
    }
}

/// The connections of adopted pods are captured already.
#[test]
fn connections_of_adopted_pods_stay_open() {
    let node = new_node();
    let options = ["--close-connections"];
    let mut agent = node.start_ready_agent(&options).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let app = pod.app().expect("the app");
    let (socket, _) = call(app, REMOTE).expect("a call");
    agent.kill().expect("killed");
    let again = node.start_ready_agent(&options).expect("an agent");
    let captured = || Ok(again.metric(r#"interceptor_pods{state="captured"}"#)? == Some(1.0));
    wait_until("adopted", captured).expect("the metric");
    expect_captured(&pod);
    assert!(echoes(app, socket).expect("an echo"), "{}", again.log());
}
