//! Strict mode: only packets of connections that the programs have decided on pass the pod's
//! interfaces, whether the programs are on the node's side of the veth or in the pod. (`bypass` has
//! the ways past the proxy.)

use std::net::SocketAddr;

use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Protocol, Reply, Request, SocketOption},
    },
    interceptor,
    lab::{
        Caller, Lab, NOTHING, STOCK, all_captured, all_direct, call, echoes, send_datagram,
        wait_until,
    },
    packet::{self, ACK, Fragment, SYN},
    scenario::address,
    tap::Tap,
    users::{PROXY, ROOT, TRANSPARENT_PROXY},
    world::{Bind, serve},
};
use serde_json::Value;

const REMOTE: &str = "10.2.0.9:80";
/// The source of forged segments.
const FORGED: &str = "10.1.0.2:40000";

/// Where the programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Node,
    Pod,
}

const SIDES: [Side; 2] = [Side::Node, Side::Pod];

/// Attaches as an agent does on the node, which is the peer here, or as a program elsewhere does.
fn attach(lab: &Lab, side: Side, flags: &[&str]) {
    let all = [STOCK, flags].concat();
    let attached = match side {
        Side::Node => lab.peer.enter(|| lab.attach(&all)),
        Side::Pod => lab.attach(&all),
    };
    attached.expect("attached");
}

fn strict(side: Side, mode: &str) -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    attach(&lab, side, &["--strict", mode]);
    lab
}

fn status(lab: &Lab) -> Value {
    let netns = lab.pod.path().to_str().expect("a path");
    let status = || interceptor::try_run(["status", "-o", "json", "--netns", netns]);
    let output = lab.peer.enter(status).expect("the status");
    let pods: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    pods[0].clone()
}

/// The number of packets and connections that were refused for `reason`.
fn refused(lab: &Lab, reason: &str) -> u64 {
    let status = status(lab);
    let counts = status["connections"].as_array().expect("connections");
    let is_wanted = |count: &&Value| count["reason"] == reason && count["verdict"] == "REFUSED";
    let counted = counts.iter().filter(is_wanted);
    counted.filter_map(|count| count["count"].as_u64()).sum()
}

/// A process that may open raw sockets for TCP, because it has the proxy's group.
fn forger(lab: &Lab) -> Actor {
    let cgroup = lab.cgroup.child("pod/forger").expect("a cgroup");
    Actor::start(
        "forger",
        TRANSPARENT_PROXY,
        lab.pod.namespace(),
        Some(&cgroup),
    )
    .expect("an actor")
}

/// Counts the forged segments that reach the peer.
fn tap(lab: &Lab) -> Tap<'_> {
    Tap::at(&lab.peer, "prerouting", &[("forged", "tcp sport 40000")]).expect("a tap")
}

fn expect_packets(tap: &Tap<'_>, counter: &str, count: u64) {
    wait_until(counter, || Ok(tap.packets(counter)? == count)).expect("packets");
}

/// Sends a TCP segment by a raw socket.
fn send_segment(sender: &Actor, flags: u8, data: &[u8]) -> Reply {
    let open = Request::OpenSocket {
        domain: libc::AF_INET,
        kind: libc::SOCK_RAW,
        protocol: libc::IPPROTO_TCP,
    };
    let Reply::Socket(socket) = sender.must(&open).expect("a raw socket") else {
        panic!("no socket");
    };
    let [from, to] = [FORGED, REMOTE].map(address);
    let send = Request::SendBytes {
        socket,
        address: Some(SocketAddr::new(to.ip(), 0)),
        bytes: packet::segment(from, to, flags, data),
    };
    sender.call(&send).expect("a reply")
}

#[test]
fn strict_mode_changes_no_connection_of_a_socket() {
    for (side, mode) in [
        (Side::Node, "tcp"),
        (Side::Node, "all"),
        (Side::Pod, "tcp"),
        (Side::Pod, "all"),
    ] {
        let lab = strict(side, mode);
        assert_eq!(lab.dial_all().unwrap(), all_captured(), "{side:?}");
        for to in [REMOTE, "[fd00:2::9]:80", "[::ffff:10.2.0.9]:80"] {
            let (socket, server) = call(&lab.proxy, to).expect("a connection");
            assert_eq!(server, "remote:80", "{side:?} {to}");
            assert!(echoes(&lab.proxy, socket).unwrap(), "{side:?} {to}");
        }
        serve(&lab.server, Bind::DUAL_WILDCARD, 15020).expect("a server");
        for to in ["10.1.0.2:15020", "[fd00:1::2]:15020"] {
            let server = lab.dial(Caller::Client, to).expect("a connection");
            assert_eq!(server, "server:15020", "{side:?}");
        }
        assert_eq!(status(&lab)["warnings"], serde_json::json!([]), "{side:?}");
    }
}

#[test]
fn a_raw_socket_sends_no_tcp() {
    for side in SIDES {
        let lab = strict(side, "tcp");
        let tap = tap(&lab);
        let forger = forger(&lab);
        for (flags, data) in [(SYN, &b""[..]), (ACK, b"data"), (SYN | ACK, b"data")] {
            let sent = send_segment(&forger, flags, data);
            assert!(!matches!(sent, Reply::Error(_)), "{side:?} {sent:?}");
        }
        assert_eq!(tap.packets("forged").unwrap(), 0, "{side:?}");
        assert_eq!(refused(&lab, "strict_no_socket"), 3, "{side:?}");
    }
}

/// The kernel sends such segments without a socket of its own.
#[test]
fn a_segment_without_data_passes() {
    let lab = strict(Side::Node, "tcp");
    let tap = tap(&lab);
    send_segment(&forger(&lab), ACK, b"");
    expect_packets(&tap, "forged", 1);
}

/// Its first fragment carries no data, the second one only data.
#[test]
fn a_fragmented_segment_without_a_socket_does_not_enter() {
    let lab = strict(Side::Node, "tcp");
    let [from, to] = ["10.1.0.1:40000", "10.1.0.2:8080"].map(address);
    // Six words: the last one has four options that do nothing.
    let mut header = packet::segment(from, to, ACK, &[1; 4]);
    header[12] = 6 << 4;
    let fragment = Fragment {
        offset: 0,
        more: true,
    };
    let packet = packet::ipv4_fragment(from.ip(), to.ip(), &[], &header, fragment);
    let (pod, peer) = ([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
    let sent = lab.client.call(&Request::SendFrames {
        interface: "eth0".to_owned(),
        frames: vec![packet::frame(pod, peer, None, &packet)],
        bypass_queue: false,
    });
    // A packet socket learns that a program drops its packet.
    assert_eq!(sent.unwrap(), Reply::Error("ENOBUFS".to_owned()));
    assert_eq!(refused(&lab, "strict_no_socket"), 1);
}

/// Otherwise the app could take the link down, wait for the agent, and take it up again.
#[test]
fn a_link_that_is_down_keeps_its_programs() {
    let lab = strict(Side::Node, "tcp");
    let before = status(&lab)["uplinks"].clone();
    lab.pod.ip("link set eth0 down").expect("down");
    attach(&lab, Side::Node, &["--strict", "tcp"]);
    assert_eq!(status(&lab)["uplinks"], before);
}

/// It would not find the other end of the veth, and the programs in the pod refuse less.
#[test]
fn a_command_in_another_network_namespace_does_not_move_the_programs() {
    let lab = strict(Side::Node, "tcp");
    let before = status(&lab)["uplinks"].clone();
    let attached = lab.attach(&[STOCK, &["--strict", "all"]].concat());
    let error = format!("{:#}", attached.expect_err("refused"));
    assert!(error.contains("another network namespace"), "{error}");
    assert_eq!(status(&lab)["uplinks"], before);
    assert_eq!(lab.dial_all().unwrap(), all_captured());
}

#[test]
fn an_older_connection_ends_if_it_is_to_be_captured() {
    for side in SIDES {
        let lab = Lab::new().expect("a lab");
        let (older, server) = call(&lab.app, REMOTE).expect("a connection");
        assert_eq!(server, "remote:80");
        let (by_proxy, _) = call(&lab.proxy, REMOTE).expect("a connection");
        let (from_outside, _) = call(&lab.client, "10.1.0.2:8080").expect("a connection");
        lab.start_proxy().expect("a proxy");
        attach(&lab, side, &["--strict", "tcp"]);
        assert!(!echoes(&lab.app, older).unwrap(), "{side:?}");
        assert!(echoes(&lab.proxy, by_proxy).unwrap(), "{side:?}");
        assert!(echoes(&lab.client, from_outside).unwrap(), "{side:?}");
        assert!(refused(&lab, "strict_past_proxy") > 0, "{side:?}");
    }
}

/// As with iptables: a change of the settings does not affect connections.
#[test]
fn a_permitted_connection_survives_tighter_settings() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    attach(&lab, Side::Node, &["--strict", "tcp", "-x", "10.2.0.9/32"]);
    let (socket, server) = call(&lab.app, REMOTE).expect("a connection");
    assert_eq!(server, "remote:80");
    attach(&lab, Side::Node, &["--strict", "tcp"]);
    assert!(echoes(&lab.app, socket).unwrap());
    assert_eq!(
        lab.dial(Caller::App, REMOTE).unwrap(),
        "proxy:15001 for 10.2.0.9:80"
    );
}

#[test]
fn an_app_that_listens_for_the_proxy_gets_nothing() {
    for flags in [&[][..], &["--strict", "tcp"]] {
        let lab = Lab::new().expect("a lab");
        for port in [15001, 15006] {
            serve(&lab.app, Bind::DUAL_WILDCARD, port).expect("a server");
        }
        attach(&lab, Side::Node, flags);
        let dialled = lab.dial_all().expect("results");
        if flags.is_empty() {
            assert_eq!(dialled[0], "app:15001");
        } else {
            assert_eq!(dialled, vec!["ECONNREFUSED"; dialled.len()]);
            assert_eq!(refused(&lab, "not_proxy"), 5);
        }
    }
}

#[test]
fn ipv6_that_is_not_captured_is_refused() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let flags = &["-b", "*", "-i", "*", "--strict", "tcp"];
    lab.peer.enter(|| lab.attach(flags)).expect("attached");
    assert_eq!(
        lab.dial(Caller::App, REMOTE).unwrap(),
        "proxy:15001 for 10.2.0.9:80"
    );
    let address = "[fd00:2::9]:80".parse().expect("an address");
    let socket = lab.app.socket(Family::V6, Protocol::Tcp).expect("a socket");
    let started = lab.app.call(&Request::ConnectStart { socket, address });
    assert_eq!(started.unwrap(), Reply::Error("EINPROGRESS".to_owned()));
    lab.app
        .must(&Request::ConnectFinish { socket })
        .expect("no result");
    assert!(refused(&lab, "strict_past_proxy") > 0);
}

#[test]
fn datagrams_pass_only_by_exemption_in_mode_all() {
    for (side, mode) in [(Side::Node, "all"), (Side::Pod, "all"), (Side::Node, "tcp")] {
        let lab = strict(side, mode);
        attach(
            &lab,
            side,
            &["--strict", mode, "-o", "9999", "-x", "10.1.0.1/32"],
        );
        let count = |port| format!("udp dport {port}");
        let ports = [53, 123, 9999, 1234];
        let names = ports.map(|port| (format!("udp{port}"), count(port)));
        let counters = names
            .each_ref()
            .map(|(name, rule)| (name.as_str(), rule.as_str()));
        let tap = Tap::at(&lab.peer, "prerouting", &counters).expect("a tap");
        for port in [53, 123, 9999] {
            send_datagram(&lab.app, &format!("10.2.0.9:{port}")).expect("sent");
            send_datagram(&lab.app, &format!("[fd00:2::9]:{port}")).expect("sent");
        }
        send_datagram(&lab.app, "10.1.0.1:1234").expect("sent to an excluded address");
        send_datagram(&lab.proxy, "10.2.0.9:1234").expect("sent by the proxy");
        for port in [53, 9999, 1234] {
            expect_packets(&tap, &format!("udp{port}"), 2);
        }
        let refuses = mode == "all";
        expect_packets(&tap, "udp123", if refuses { 0 } else { 2 });
        assert_eq!(
            refused(&lab, "strict_protocol"),
            if refuses { 2 } else { 0 }
        );
    }
}

#[test]
fn datagrams_enter_only_as_responses_in_mode_all() {
    let lab = strict(Side::Node, "all");
    attach(&lab, Side::Node, &["--strict", "all", "-o", "9999"]);
    let serve_udp = |actor: &Actor, port: u16| {
        let socket = actor.socket(Family::V4, Protocol::Udp).expect("a socket");
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        actor
            .must(&Request::Bind { socket, address })
            .expect("bound");
        actor.must(&Request::Serve { socket }).expect("served");
    };
    serve_udp(&lab.remote, 9999);
    serve_udp(&lab.server, 7777);
    let ask = |actor: &Actor, to: &str| {
        let socket = actor.socket(Family::V4, Protocol::Udp).expect("a socket");
        let address = to.parse().expect("an address");
        let data = "hello".to_owned();
        actor
            .must(&Request::SendTo {
                socket,
                address,
                data,
            })
            .expect("sent");
        actor
            .call(&Request::ReceiveFrom {
                socket,
                peek: false,
            })
            .expect("a reply")
    };
    let response = ask(&lab.app, "10.2.0.9:9999");
    assert!(!matches!(response, Reply::Error(_)), "{response:?}");
    let response = ask(&lab.client, "10.1.0.2:7777");
    assert!(matches!(response, Reply::Error(_)), "{response:?}");
    // 15020 is excluded inbound.
    serve_udp(&lab.server, 15020);
    let response = ask(&lab.client, "10.1.0.2:15020");
    assert!(!matches!(response, Reply::Error(_)), "{response:?}");
}

#[test]
fn nothing_is_left_when_strict_mode_ends() {
    for side in SIDES {
        let lab = Lab::new().expect("a lab");
        lab.start_proxy().expect("a proxy");
        let before = lab.traces().expect("traces");
        attach(&lab, side, &["--strict", "tcp"]);
        let uplinks = status(&lab)["uplinks"].clone();
        let at = if side == Side::Node { "node" } else { "pod" };
        assert_eq!(
            uplinks,
            serde_json::json!([{"interface": "eth0", "at": at}])
        );
        // Off: raw sockets pass again, the rest stays captured.
        attach(&lab, side, &[]);
        let tap = tap(&lab);
        send_segment(&forger(&lab), ACK, b"data");
        expect_packets(&tap, "forged", 1);
        assert_eq!(lab.dial_all().unwrap(), all_captured(), "{side:?}");
        attach(&lab, side, &["--strict", "all"]);
        match side {
            Side::Node => lab.peer.enter(|| lab.detach()),
            Side::Pod => lab.detach(),
        }
        .expect("detached");
        assert_eq!(lab.dial_all().unwrap(), all_direct(), "{side:?}");
        assert_eq!(lab.changes_since(&before).unwrap(), NOTHING, "{side:?}");
        assert_eq!(lab.leftovers().unwrap(), NOTHING, "{side:?}");
    }
}

/// On the node's side, the kernel looks such a socket up with the index of the node's interface: the known
/// limit of docs/strict.md.
#[test]
fn a_socket_of_the_proxy_that_is_bound_to_the_interface() {
    for side in SIDES {
        let lab = strict(side, "tcp");
        let cgroup = lab.cgroup.child("pod/bound").expect("a cgroup");
        let proxy = Actor::start("bound", ROOT, lab.pod.namespace(), Some(&cgroup));
        let proxy = proxy.expect("an actor");
        let must = |request| proxy.must(&request).expect("done");
        must(Request::SetSocketOwner {
            uid: PROXY.uid,
            gid: PROXY.gid,
        });
        let socket = proxy.socket(Family::V4, Protocol::Tcp).expect("a socket");
        let option = SocketOption::BindToDevice("eth0".to_owned());
        must(Request::Set { socket, option });
        let address = address(REMOTE);
        must(Request::Connect { socket, address });
        let line = proxy.call(&Request::ReceiveLine { socket });
        let line = line.expect("a reply");
        match side {
            Side::Node => assert_eq!(line, Reply::Error("EAGAIN".to_owned())),
            Side::Pod => assert!(matches!(line, Reply::Data(_)), "{line:?}"),
        }
    }
}
