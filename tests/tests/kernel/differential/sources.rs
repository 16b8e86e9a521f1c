//! The source of a connection: selected by routing, or the address that the socket is bound to.

use interceptor_testkit::{
    actor::protocol::{
        Family,
        SocketOption::{self, BindAddressNoPort, BindToDevice, Mark, Transparent, V6Only},
    },
    scenario::{Dial, Scenario, differential},
    world::{Role, Setup},
};

const PROXY: &str = "proxy:15001";

fn app(to: &str) -> Dial {
    Dial::new(Role::App, to)
}

fn device(name: &str) -> SocketOption {
    BindToDevice(name.to_owned())
}

#[test]
fn the_source_selected_by_routing() {
    let scenarios = [
        ("default route", "10.2.0.9:80"),
        ("route with a secondary address as src", "10.9.0.1:80"),
        (
            "route with another interface's address as src",
            "10.8.0.1:80",
        ),
        ("route through another interface", "10.4.0.1:80"),
        ("neighbour", "10.1.0.1:80"),
        ("neighbour on another interface", "10.3.0.1:80"),
        ("default route", "[fd00:2::9]:80"),
        ("route with src", "[fd00:9::1]:80"),
        (
            "route with another interface's address as src",
            "[fd00:8::1]:80",
        ),
        ("route through another interface", "[fd00:4::1]:80"),
        ("neighbour", "[fd00:1::1]:80"),
        ("neighbour on another interface", "[fd00:3::1]:80"),
        (
            "route with a secondary address as src",
            "[::ffff:10.9.0.1]:80",
        ),
        ("route through another interface", "[::ffff:10.4.0.1]:80"),
    ]
    .map(|(name, to)| Scenario::dial(name, PROXY, app(to)));
    differential(&Setup::default(), &scenarios);
}

#[test]
fn the_source_a_socket_is_bound_to() {
    let scenarios = [
        ("10.1.0.2:0", "10.2.0.9:80"),
        ("10.1.0.3:0", "10.2.0.9:80"),
        ("10.3.0.2:0", "10.2.0.9:80"),
        ("10.1.0.3:20011", "10.2.0.9:80"),
        ("0.0.0.0:20012", "10.2.0.9:80"),
        ("0.0.0.0:20013", "10.9.0.1:80"),
        ("0.0.0.0:0", "10.9.0.1:80"),
        ("[fd00:1::2]:0", "[fd00:2::9]:80"),
        ("[fd00:1::3]:0", "[fd00:2::9]:80"),
        ("[fd00:3::2]:0", "[fd00:2::9]:80"),
        ("[fd00:1::3]:20014", "[fd00:2::9]:80"),
        ("[::]:20015", "[fd00:9::1]:80"),
        ("[::]:0", "[fd00:2::9]:80"),
        ("[::ffff:10.1.0.3]:0", "[::ffff:10.2.0.9]:80"),
        ("[::ffff:10.1.0.3]:20016", "[::ffff:10.2.0.9]:80"),
        ("[::ffff:0.0.0.0]:0", "[::ffff:10.9.0.1]:80"),
        ("[::]:0", "[::ffff:10.9.0.1]:80"),
        ("[::]:20017", "[::ffff:10.9.0.1]:80"),
    ]
    .map(|(from, to)| Scenario::dial(&format!("from {from}"), PROXY, app(to).from(from)));
    differential(&Setup::default(), &scenarios);
}

#[test]
fn a_bound_address_whose_port_is_still_open() {
    let scenarios = [
        ("10.1.0.3:0", "10.2.0.9:80"),
        ("10.3.0.2:0", "10.2.0.9:80"),
        ("0.0.0.0:0", "10.9.0.1:80"),
        ("[fd00:1::3]:0", "[fd00:2::9]:80"),
        ("[::ffff:10.1.0.3]:0", "[::ffff:10.2.0.9]:80"),
    ]
    .map(|(from, to)| {
        let dial = app(to).with(BindAddressNoPort).from(from);
        Scenario::dial(&format!("from {from}"), PROXY, dial)
    });
    differential(&Setup::default(), &scenarios);
}

#[test]
fn mismatched_families() {
    let scenarios = [
        (
            "an IPv6 bind, an IPv4 destination",
            "ENETUNREACH",
            app("[::ffff:10.2.0.9]:80").from("[fd00:1::2]:0"),
        ),
        (
            "an IPv4 bind, an IPv6 destination",
            "EAFNOSUPPORT",
            app("[fd00:2::9]:80").from("[::ffff:10.1.0.2]:0"),
        ),
        (
            "an IPv6-only socket, an IPv4 destination",
            "ENETUNREACH",
            app("[::ffff:10.2.0.9]:80").with(V6Only(true)),
        ),
        (
            "an IPv4 socket, an IPv6 destination",
            "EAFNOSUPPORT",
            app("[fd00:2::9]:80").on(Family::V4),
        ),
        (
            "an IPv6 socket, an IPv4 address",
            "EINVAL",
            app("10.2.0.9:80").on(Family::V6),
        ),
        (
            "an IPv4 bind to localhost, the IPv6 wildcard",
            "app:80",
            app("[::]:80").from("[::ffff:127.0.0.1]:0"),
        ),
        (
            "an IPv4 bind to the pod's address, the IPv6 wildcard",
            "app:80",
            app("[::]:80").from("[::ffff:10.1.0.2]:0"),
        ),
        (
            "an IPv6 bind, the IPv4 wildcard",
            "ENETUNREACH",
            app("[::ffff:0.0.0.0]:80").from("[fd00:1::2]:0"),
        ),
    ]
    .map(|(name, outcome, dial)| Scenario::dial(name, outcome, dial));
    differential(&Setup::default(), &scenarios);
}

/// The capture of a socket that is bound to another device is a known difference.
#[test]
fn a_socket_bound_to_a_device() {
    let captured = [
        ("lo", "127.0.0.1:80", "app:80"),
        // The reply counts as received on eth0, which has the address.
        ("lo", "10.1.0.2:80", "silence"),
        ("lo", "10.2.0.9:80", "silence"),
    ]
    .map(|(name, to, outcome)| {
        let dial = Dial::new(Role::Root, to).with(device(name));
        Scenario::dial(&format!("an app on {name}"), outcome, dial)
    });
    let proxy = [
        ("eth0", "10.2.0.9:80"),
        ("eth1", "10.4.0.1:80"),
        ("eth0", "[fd00:2::9]:80"),
    ]
    .map(|(name, to)| {
        let dial = Dial::new(Role::ProxyGid, to).with(device(name));
        Scenario::dial(&format!("the proxy on {name}"), "remote:80", dial)
    });
    let scenarios: Vec<_> = captured.into_iter().chain(proxy).collect();
    differential(&Setup::default(), &scenarios);
}

#[test]
fn privileged_sockets() {
    let root = |to| Dial::new(Role::Root, to);
    let scenarios = [
        Scenario::dial("a mark", PROXY, root("10.2.0.9:80").with(Mark(1337))),
        Scenario::dial("a mark", PROXY, root("[fd00:2::9]:80").with(Mark(1337))),
        Scenario::dial("a foreign source", "silence", {
            root("10.2.0.9:80").with(Transparent).from("10.77.0.1:0")
        }),
        Scenario::dial("a foreign source to the pod's own address", "silence", {
            root("10.1.0.2:80").with(Transparent).from("10.77.0.1:0")
        }),
    ];
    differential(&Setup::default(), &scenarios);
}
