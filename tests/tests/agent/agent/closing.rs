//! Connections that were open when a running pod was captured.

use std::net::SocketAddr;

use interceptor_testkit::{
    actor::{Actor, protocol::Handle},
    lab::{call, echoes, wait_until},
    node::{Node, Pod, REMOTE, STRAIGHT},
};

use super::{expect_captured, new_node, of_mesh, until_captured};

/// A pod that nobody has captured, and its open connections: out, in, and the proxy's own.
struct Open {
    pod: Pod,
    out: Handle,
    inward: Handle,
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
        out: called(pod.app().expect("the app"), REMOTE, STRAIGHT),
        inward: called(&node.client, &inside, "app:8080"),
        of_proxy: called(proxy, REMOTE, STRAIGHT),
        pod,
    }
}

#[test]
fn by_setting_they_are_closed_and_come_again_through_the_proxy() {
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
    assert!(!echoes(app, open.out).expect("an answer"));
    assert!(!echoes(&node.client, open.inward).expect("an answer"));
    expect_captured(&open.pod);
    // The proxy's own were never to be captured.
    let proxy = open.pod.container("proxy").expect("the proxy");
    assert!(echoes(proxy, open.of_proxy).expect("an echo"));
}

#[test]
fn by_default_they_go_on() {
    let node = new_node();
    let open = open(&node);
    let agent = node.start_agent(&[]).expect("an agent");
    until_captured(&open.pod, || agent.log());
    let app = open.pod.app().expect("the app");
    let proxy = open.pod.container("proxy").expect("the proxy");
    for (who, socket) in [
        (app, open.out),
        (&node.client, open.inward),
        (proxy, open.of_proxy),
    ] {
        assert!(echoes(who, socket).expect("an echo"));
    }
}

/// The connection goes through the proxy already: there is nothing to close.
#[test]
fn what_a_new_agent_takes_over_is_not_closed() {
    let node = new_node();
    let options = ["--close-connections"];
    let mut agent = node.start_ready_agent(&options).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let app = pod.app().expect("the app");
    let (socket, _) = call(app, REMOTE).expect("a call");
    agent.kill().expect("killed");
    let again = node.start_ready_agent(&options).expect("an agent");
    let captured = || Ok(again.metric(r#"interceptor_pods{state="captured"}"#)? == Some(1.0));
    wait_until("taken over", captured).expect("the metric");
    expect_captured(&pod);
    assert!(echoes(app, socket).expect("an echo"), "{}", again.log());
}
