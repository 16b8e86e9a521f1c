//! Packets from outside with a spoofed source address.

use std::net::SocketAddr;

use interceptor_testkit::{
    forged::send_syn,
    lab::{Caller, Lab, STOCK, call, stand_in, wait_until},
    tap::Tap,
};

/// The pod's own address, and its server's port.
const POD: &str = "[fd00:1::2]:8080";

/// The pod's replies.
const RESPONSES: [(&str, &str); 2] = [
    ("syn_acks", "tcp flags & (syn|ack) == syn|ack"),
    ("resets", "tcp flags & rst == rst"),
];

/// Sends a SYN to `to` from outside, with the pod's own address as source. Returns the number of
/// SYN-ACKs and of RSTs that the pod sends to itself.
fn responses(lab: &Lab, to: SocketAddr) -> [u64; 2] {
    let tap = Tap::at(&lab.pod, "output", &RESPONSES).expect("a tap");
    let from = "[fd00:1::2]:5555".parse().expect("an address");
    send_syn(&lab.peer, from, to).expect("a SYN");
    let responses = || RESPONSES.map(|(name, _)| tap.packets(name).expect("a counter"));
    wait_until("a response", || Ok(responses() != [0, 0])).expect("a response");
    responses()
}

/// IPv6 accepts a packet from outside whose source is the pod's own address. It is inbound all the
/// same: without a proxy it is refused, and the app's server never responds.
#[test]
fn a_packet_from_outside_with_the_pods_own_source_is_inbound() {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    let to = POD.parse().expect("an address");
    assert_eq!(responses(&lab, to), [0, 1]);
    // A real connection of the pod to itself reaches its server.
    for to in [POD, "10.1.0.2:8080"] {
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), "server:8080");
    }
}

/// Nor does such a packet reach the proxy as one that the pod has sent to a stand-in.
#[test]
fn a_packet_with_a_spoofed_pod_source_reaches_no_stand_in() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let (socket, response) = call(&lab.app, "[fd00:2::9]:80").expect("a call");
    assert_eq!(response, "proxy:15001 for [fd00:2::9]:80");
    let to = stand_in(&lab, socket);
    lab.peer
        .ip("route add fd69:6365:7074::/64 via fd00:1::2")
        .expect("a route");
    assert_eq!(responses(&lab, to), [0, 1]);
}
