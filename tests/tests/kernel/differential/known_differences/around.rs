//! Sockets that bypass `connect(2)`, options that name the destination, and other rules in
//! iptables.

use interceptor_testkit::{
    actor::protocol::{Family, Level, Protocol, Reply, Request, SocketOption},
    command::{bounded, run},
    netns::Netns,
    scenario::address,
    settings::Settings,
    world::{Mechanism, Role, Setup, World},
};

use super::dial;

const FAR: &str = "10.2.0.9:80";

/// Compares an observation with the expected text in each world.
#[track_caller]
fn expect(setup: &Setup, record: impl Fn(&World) -> String, iptables: &str, interceptor: &str) {
    for (mechanism, expected) in [
        (Mechanism::Iptables, iptables),
        (Mechanism::Interceptor, interceptor),
    ] {
        let world = World::new(mechanism, setup).expect("a world");
        let observed = record(&world);
        assert!(observed.contains(expected), "{mechanism:?}: {observed}");
    }
}

fn iptables(netns: &Netns, arguments: &str) -> String {
    let arguments = arguments.split_whitespace();
    let done = netns.enter(|| run(bounded("iptables").arg("-w").args(arguments), ""));
    done.expect("iptables")
}

/// The app dials `to` with an option set.
fn dial_with(world: &World, option: SocketOption, to: &str) -> String {
    let actor = world.actor(Role::App).expect("an actor");
    let address = address(to);
    let family = Family::of(address);
    let socket = actor.socket(family, Protocol::Tcp).expect("a socket");
    actor
        .must(&Request::Set { socket, option })
        .expect("the option");
    let connected = actor.call(&Request::Connect { socket, address });
    if let Reply::Error(errno) = connected.expect("a response") {
        return errno;
    }
    format!("{:?}", actor.call(&Request::ReceiveLine { socket }))
}

/// Behind iptables a captured connection of a socket that is bound to an interface has no route:
/// localhost is not on that interface. Here the SYN would leave for the stand-in through that
/// interface.
#[test]
fn a_socket_bound_to_an_interface_is_refused_only_here() {
    let destinations = [
        ("eth0", FAR),
        ("eth1", "10.4.0.1:80"),
        ("eth1", FAR),
        ("eth0", "[fd00:2::9]:80"),
        ("eth0", "[::ffff:10.2.0.9]:80"),
    ];
    for (interface, to) in destinations {
        let device = SocketOption::BindToDevice(interface.to_owned());
        let record = |world: &World| dial_with(world, device.clone(), to);
        expect(&Setup::default(), record, "EINPROGRESS", "ECONNREFUSED");
    }
}

#[test]
fn a_nat_rule_before_istios_wins_only_behind_iptables() {
    let dialled = |world: &World| {
        let rule = "-t nat -I OUTPUT -p tcp -d 10.2.0.9 --dport 80 -j DNAT --to 10.2.0.10:443";
        iptables(world.pod(), rule);
        dial(world, Role::App, FAR)
    };
    expect(&Setup::default(), dialled, "remote:443", "proxy:15001");
}

/// An inbound connection has the port 15006 when the chain INPUT gets it.
#[test]
fn filter_rules_match_the_apps_port_here_and_not_15006() {
    let dropped = |world: &World| {
        iptables(world.pod(), "-A INPUT -p tcp --dport 8080 -j DROP");
        dial(world, Role::Client, "10.1.0.2:8080")
    };
    expect(&Setup::default(), dropped, "proxy:15006", "EINPROGRESS");
    let only_15006 = |world: &World| {
        iptables(world.pod(), "-A INPUT -p tcp --dport 15006 -j ACCEPT");
        iptables(world.pod(), "-A INPUT -i eth0 -p tcp --syn -j DROP");
        dial(world, Role::Client, "10.1.0.2:8080")
    };
    expect(&Setup::default(), only_15006, "proxy:15006", "EINPROGRESS");
}

/// An outbound connection has the destination 127.0.0.1:15001 when the chain OUTPUT gets it.
#[test]
fn filter_rules_match_the_stand_in_here_and_not_15001() {
    let only_15001 = |world: &World| {
        let others = "-A OUTPUT -p tcp --syn -j DROP";
        iptables(
            world.pod(),
            "-A OUTPUT -p tcp -d 127.0.0.1 --dport 15001 -j ACCEPT",
        );
        iptables(world.pod(), others);
        dial(world, Role::App, FAR)
    };
    expect(&Setup::default(), only_15001, "proxy:15001", "EINPROGRESS");
}

/// An interface that is created after the attach.
#[test]
fn interface_names_are_resolved_at_the_next_attach_here() {
    let setup = Setup::with(Settings {
        excluded_interfaces: "net1",
        ..Settings::default()
    });
    let dialled = |world: &World| {
        let (pod, peer) = (world.pod(), world.peer());
        pod.cable("net1", peer, "net1", 3).expect("a cable");
        for (netns, address) in [(pod, "10.7.0.2/24"), (peer, "10.7.0.1/24")] {
            let added = netns.ip(&format!("addr add {address} dev net1\n"));
            added.expect("an address");
        }
        dial(world, Role::App, "10.7.0.1:80")
    };
    expect(&setup, dialled, "remote:80", "proxy:15001");
    // The next attach has other settings, too.
    let mut world = World::new(Mechanism::Interceptor, &setup).expect("a world");
    assert!(dialled(&world).contains("proxy:15001"));
    world.set(&setup.settings).expect("attached again");
    let response = dial(&world, Role::App, "10.7.0.1:80");
    assert!(response.contains("remote:80"), "{response}");
}

/// The key is the destination's: behind iptables the proxy gets signed segments, for which it has
/// no key.
#[test]
fn a_tcp_md5_key_for_the_destination_is_not_used_here() {
    let dialled = |world: &World| dial_with(world, SocketOption::Md5Key(address(FAR)), FAR);
    expect(&Setup::default(), dialled, "EINPROGRESS", "proxy:15001");
}

#[test]
fn with_dontroute_a_stand_in_is_reachable_only_here() {
    let dialled = |world: &World| dial_with(world, SocketOption::DontRoute, FAR);
    expect(&Setup::default(), dialled, "ENETUNREACH", "proxy:15001");
}

/// The kernel does not change the length of the caller. A BPF program gets one page of the buffer,
/// and cannot set a length beyond that.
#[test]
fn original_destination_length_in_a_buffer_above_a_page() {
    const LENGTH: usize = 8192;

    let record = |world: &World| {
        let app = world.actor(Role::App).expect("an actor");
        let socket = app.socket(Family::V4, Protocol::Tcp).expect("a socket");
        let address = address(FAR);
        let connect = Request::Connect { socket, address };
        app.must(&connect).expect("connected");
        let request = Request::OriginalDestination {
            socket,
            level: Level::Ip,
            length: LENGTH,
        };
        format!("{:?}", app.call(&request))
    };
    expect(&Setup::default(), record, "length: 8192", "length: 16");
}

/// The passthrough address is on `lo`, and IPv6 delivers packets from outside for it.
#[test]
fn a_neighbour_reaches_the_passthrough_address_only_here() {
    let record = |world: &World| {
        let route = "route add ::6/128 via fd00:1::2";
        world.peer().ip(route).expect("a route");
        dial(world, Role::Client, "[::6]:8080")
    };
    expect(&Setup::default(), record, "EINPROGRESS", "proxy:15006");
}
