//! Connections that must never reach the proxy or an app, whatever iptables does.

mod hostile_pods;
mod source_routes;
mod spoofed;

use std::net::Ipv6Addr;

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request},
    scenario::address,
    world::{Mechanism, Role, Setup, World},
};

/// The first IPv6 stand-ins, in the documented range that a pod cannot use itself.
const STAND_INS_V6: Ipv6Addr = Ipv6Addr::new(0xfd69, 0x6365, 0x7074, 0, 0, 0, 0, 0);

fn captured(setup: &Setup) -> World {
    World::new(Mechanism::Interceptor, setup).expect("a world")
}

/// `role` dials `to`: the server that responds, or the errno.
fn dial(world: &World, role: Role, to: &str) -> Result<String> {
    let actor = world.actor(role)?;
    let address = address(to);
    let socket = actor.socket(Family::of(address), Protocol::Tcp)?;
    if let Reply::Error(errno) = actor.call(&Request::Connect { socket, address })? {
        return Ok(errno);
    }
    match actor.call(&Request::ReceiveLine { socket })? {
        Reply::Data(line) => Ok(line),
        Reply::Error(errno) => Ok(errno),
        reply => Ok(format!("{reply:?}")),
    }
}

/// The IPv6 range is local to the pod, so a neighbour can send to it: not even an allocated
/// stand-in may connect it to the proxy.
#[test]
fn a_neighbour_that_dials_stand_ins_is_refused() {
    let world = captured(&Setup::default());
    for to in ["[fd00:2::9]:80", "[fd00:2::10]:80", "[fd00:2::9]:443"] {
        let response = dial(&world, Role::App, to).expect("a dial");
        assert!(response.contains("proxy:15001"), "{to}: {response}");
    }
    let route = format!("route add {STAND_INS_V6}/64 via fd00:1::2");
    world.peer().ip(&route).expect("a route");
    for number in 0..8_u128 {
        for port in [1, 2, 80, 15001] {
            let stand_in = Ipv6Addr::from_bits(STAND_INS_V6.to_bits() + number);
            let response = dial(&world, Role::Client, &format!("[{stand_in}]:{port}"));
            let response = response.expect("a dial");
            assert_eq!(response, "ECONNREFUSED", "[{stand_in}]:{port}");
        }
    }
}

/// An app that dials an unallocated stand-in is refused; it reaches neither the proxy nor a server
/// that listens on all addresses.
#[test]
fn an_app_that_dials_an_unknown_stand_in_is_refused() {
    let world = captured(&Setup::default());
    for to in [
        "127.200.0.1:80",
        "127.255.0.1:15001",
        "[fd69:6365:7074::7f:1]:80",
    ] {
        let response = dial(&world, Role::App, to).expect("a dial");
        assert_eq!(response, "ECONNREFUSED", "{to}");
    }
}

/// A namespace without a policy, in the same cgroup as a captured one, is not affected.
#[test]
fn another_namespace_in_the_same_cgroup_is_not_affected() {
    let world = captured(&Setup::default());
    for to in [
        "10.2.0.9:80",
        "[fd00:2::9]:80",
        "127.0.0.1:80",
        "127.200.0.1:80",
    ] {
        let response = dial(&world, Role::Client, to).expect("a dial");
        assert!(response.contains("remote:80"), "{to}: {response}");
    }
}

/// Two pods with the same addresses: each one's connections reach its own proxy, and its stand-ins
/// are unknown in the other.
#[test]
fn pods_with_overlapping_addresses_are_isolated() {
    let (one, other) = (captured(&Setup::default()), captured(&Setup::default()));
    other.stop_proxy().expect("no proxy");
    for to in ["10.2.0.9:80", "[fd00:2::9]:80"] {
        let response = dial(&one, Role::App, to).expect("a dial");
        assert!(response.contains("proxy:15001"), "{to}: {response}");
        let response = dial(&other, Role::App, to).expect("a dial");
        assert_eq!(response, "ECONNREFUSED", "{to}");
    }
    drop(one);
    other.start_proxy().expect("a proxy");
    let response = dial(&other, Role::App, "10.2.0.9:80").expect("a dial");
    assert!(response.contains("proxy:15001"), "{response}");
}

/// After a detach, open connections stay open, and new ones bypass the proxy.
#[test]
fn connections_are_direct_after_a_detach() {
    let mut world = captured(&Setup::default());
    let app = world.actor(Role::App).expect("an app");
    let socket = app.socket(Family::V4, Protocol::Tcp).expect("a socket");
    let request = Request::Connect {
        socket,
        address: address("10.2.0.9:80"),
    };
    app.must(&request).expect("connected");
    app.must(&Request::ReceiveLine { socket })
        .expect("introduced");
    world.detach();
    let app = world.actor(Role::App).context("an app").expect("an app");
    let data = "still there\n".to_owned();
    app.must(&Request::Send { socket, data }).expect("sent");
    let echo = app.must(&Request::ReceiveLine { socket }).expect("an echo");
    assert_eq!(echo, Reply::Data("still there".to_owned()));
    for (role, to) in [(Role::App, "10.2.0.9:80"), (Role::App, "[fd00:2::9]:80")] {
        let response = dial(&world, role, to).expect("a dial");
        assert!(response.contains("remote:80"), "{to}: {response}");
    }
    let response = dial(&world, Role::Client, "10.1.0.2:8080").expect("a dial");
    assert!(response.contains("app:8080"), "{response}");
    let response = dial(&world, Role::App, "127.200.0.1:80").expect("a dial");
    assert!(response.contains("app:80"), "{response}");
}

const OLD: &[(Role, &str)] = &[
    (Role::App, "10.2.0.9:80"),
    (Role::App, "[fd00:2::9]:80"),
    (Role::App, "10.1.0.2:80"),
    (Role::Proxy, "10.2.0.9:80"),
    (Role::Client, "10.1.0.2:8080"),
    (Role::Client, "[fd00:1::2]:8080"),
];

/// Connections that are open when the pod is attached survive. (Not compared with iptables: a
/// connection that conntrack first tracks in its middle is new to the rules, and breaks.)
#[test]
fn connections_older_than_the_interception_survive() {
    let setup = Setup {
        old_connections: OLD,
        ..Setup::default()
    };
    let world = captured(&setup);
    for ((role, to), socket) in OLD.iter().zip(world.old_connections()) {
        let (actor, socket) = (world.actor(*role).expect("an actor"), *socket);
        let data = "still there\n".to_owned();
        actor.must(&Request::Send { socket, data }).expect("sent");
        let echo = actor
            .must(&Request::ReceiveLine { socket })
            .expect("an echo");
        assert_eq!(
            echo,
            Reply::Data("still there".to_owned()),
            "{role:?} to {to}"
        );
        let peer = actor.must(&Request::PeerName { socket }).expect("a name");
        assert_eq!(peer, Reply::Name(address(to)), "{role:?} to {to}");
    }
}
