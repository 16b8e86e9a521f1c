//! The attach points of pods, and the cgroups of their sockets.

use std::{fs, path::Path};

use interceptor_testkit::{
    actor::{
        Actor, User,
        protocol::{Family, Level, Protocol, Reply, Request},
    },
    interceptor,
    lab::{Caller, Lab, STOCK, all_captured, call, dial},
    users::{APP, PROXY},
};
use serde_json::Value;

fn move_pod(lab: &Lab, to: &Path) {
    for name in ["pod/proxy", "pod/app", "pod"] {
        let from = lab.cgroup.path().join(name).join("cgroup.procs");
        for pid in fs::read_to_string(from).expect("processes").lines() {
            fs::write(to.join("cgroup.procs"), pid).expect("moved");
        }
    }
}

/// The number of listeners that `status` reports for the pod.
fn listeners(lab: &Lab) -> [u64; 2] {
    let netns = lab.pod.path().display().to_string();
    let output = interceptor::try_run(["status", "-o", "json", "--netns", &netns]);
    let output = output.expect("status");
    let pods: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    ["outbound_listeners", "inbound_listeners"].map(|name| pods[0][name].as_u64().unwrap())
}

/// Every observation that a hook affects.
fn observed(lab: &Lab) -> Vec<String> {
    let mut observed = lab.dial_all().expect("dials");
    let (socket, _) = call(&lab.app, "10.2.0.9:80").expect("a call");
    for request in [
        Request::PeerName { socket },
        Request::OriginalDestination {
            socket,
            level: Level::Ip,
            length: 16,
        },
        Request::OriginalDestination {
            socket,
            level: Level::Ipv6,
            length: 28,
        },
    ] {
        observed.push(format!("{:?}", lab.app.call(&request).expect("a reply")));
    }
    lab.app.must(&Request::CloseAll).expect("closed");
    for to in ["10.1.0.2:8080", "[fd00:1::2]:8080", "127.200.0.1:80"] {
        observed.push(lab.dial(Caller::App, to).expect("a dial"));
        observed.push(dial(&lab.proxy_client(), to).expect("a dial"));
    }
    for protocol in [Protocol::Mptcp, Protocol::Udp] {
        let family = Family::V4;
        let request = Request::Socket { family, protocol };
        let reply = lab.proxy_client().call(&request).expect("a reply");
        let opened = matches!(reply, Reply::Socket(_));
        observed.push(format!("{protocol:?} for the proxy: {opened}"));
    }
    observed
}

trait ProxyClient {
    /// The proxy as a client: its server responds while it waits.
    fn proxy_client(&self) -> Actor;
}

impl ProxyClient for Lab {
    fn proxy_client(&self) -> Actor {
        let cgroup = self.cgroup.child("pod/proxy").expect("a cgroup");
        let netns = self.pod.namespace();
        Actor::start("proxy", PROXY, netns, Some(&cgroup)).expect("an actor")
    }
}

/// Another pod at a cgroup above: the programs for the first pod's sockets run twice.
#[test]
fn running_twice_changes_nothing() {
    let (inner, outer) = (Lab::new().expect("a lab"), Lab::new().expect("a lab"));
    let cgroup = inner.cgroup.child("pod").expect("a cgroup");
    inner.attach_at(&cgroup, STOCK).expect("attached");
    let listening = inner.start_proxy().expect("a proxy");
    let (once, counted) = (observed(&inner), listeners(&inner));
    assert_eq!(once[..all_captured().len()], all_captured());
    assert_eq!(counted, [2, 2]);
    let beside = inner.cgroup.child("other").expect("a cgroup");
    move_pod(&outer, &beside);
    outer
        .attach_at(inner.cgroup.path(), STOCK)
        .expect("attached above");
    outer.start_proxy().expect("a proxy");
    assert_eq!(observed(&inner), once);
    assert_eq!(outer.dial_all().expect("dials"), all_captured());
    // Listeners that were recorded once, and those that are recorded twice.
    inner.close(listening).expect("closed");
    inner.start_proxy().expect("a proxy");
    assert_eq!(observed(&inner), once);
    assert_eq!(listeners(&inner), counted);
    // The pod above is detached, and the pod below is unchanged.
    outer.detach().expect("detached");
    assert_eq!(observed(&inner), once);
}

/// The pod itself is moved to a cgroup above, and back: always with hooks.
#[test]
fn a_pod_is_attached_at_another_cgroup() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let inner = lab.cgroup.child("pod").expect("a cgroup");
    let outer = lab.cgroup.path();
    lab.attach_at(&inner, STOCK).expect("attached");
    for cgroup in [outer, &inner, outer] {
        let printed = lab.attach_at(cgroup, STOCK).expect("attached elsewhere");
        assert!(!printed.contains("same settings"), "{printed}");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
    }
    lab.detach().expect("detached");
    let left = lab.leftovers().expect("leftovers");
    assert_eq!(left, interceptor_testkit::lab::NOTHING);
}

/// A socket is captured wherever below the attach point it was created, also by a process that was
/// moved to the pod.
#[test]
fn sockets_are_captured_wherever_they_are_created() {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    lab.start_proxy().expect("a proxy");
    let places = [
        "",
        "pod",
        "pod/a",
        "pod/a/b/c",
        "pod/app",
        "elsewhere/deep",
        "peer",
    ];
    for place in places {
        let cgroup = lab.cgroup.child(place).expect("a cgroup");
        for user in [APP, User::new(0, 0)] {
            let guest = Actor::start("guest", user, lab.pod.namespace(), Some(&cgroup));
            let guest = guest.expect("an actor");
            for to in ["10.2.0.9:80", "[fd00:2::9]:80"] {
                let response = dial(&guest, to).expect("a dial");
                assert_eq!(response, format!("proxy:15001 for {to}"), "{place}");
            }
        }
    }
}

/// The socket's cgroup counts, not that of the process which uses it; nor does it matter that the
/// process was moved since.
#[test]
fn a_socket_that_moves_is_captured() {
    let lab = Lab::new().expect("a lab");
    let inner = lab.cgroup.child("pod").expect("a cgroup");
    lab.attach_at(&inner, STOCK).expect("attached");
    lab.start_proxy().expect("a proxy");
    let socket = lab.app.socket(Family::V4, Protocol::Tcp).expect("a socket");
    let outside = lab.cgroup.child("outside").expect("a cgroup");
    let pid = lab.app.pid().to_string();
    fs::write(outside.join("cgroup.procs"), pid).expect("moved");
    let address = "10.2.0.9:80".parse().expect("an address");
    lab.app
        .must(&Request::Connect { socket, address })
        .expect("connected");
    let reply = lab.app.must(&Request::ReceiveLine { socket });
    let Reply::Data(line) = reply.expect("a line") else {
        panic!("no line");
    };
    let response = interceptor_testkit::dialler::outcome(&line).expect("an introduction");
    assert_eq!(response, "proxy:15001 for 10.2.0.9:80");
}
