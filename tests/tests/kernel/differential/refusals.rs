//! Unreachable destinations: the kernel's errno is returned at once.

use interceptor_testkit::{
    scenario::{ConnectMode, Dial, Scenario, differential},
    world::{Layout, Role, Setup},
};

/// Names, destinations and outcomes of an app's connections.
type Rows = &'static [(&'static str, &'static str, &'static str)];

const UNREACHABLE: Rows = &[
    ("multicast", "224.0.0.1:80", "ENETUNREACH"),
    ("multicast", "239.255.255.255:80", "ENETUNREACH"),
    ("multicast", "[::ffff:224.0.0.1]:80", "ENETUNREACH"),
    ("multicast", "[ff02::1%2]:80", "ENETUNREACH"),
    ("multicast", "[ff0e::1]:80", "ENETUNREACH"),
    ("limited broadcast", "255.255.255.255:80", "ENETUNREACH"),
    (
        "limited broadcast",
        "[::ffff:255.255.255.255]:80",
        "ENETUNREACH",
    ),
    ("subnet broadcast", "10.1.0.255:80", "ENETUNREACH"),
    ("subnet broadcast", "[::ffff:10.1.0.255]:80", "ENETUNREACH"),
    (
        "the other subnet's broadcast",
        "10.3.0.255:80",
        "ENETUNREACH",
    ),
    ("unreachable route", "10.66.1.1:80", "EHOSTUNREACH"),
    ("unreachable route", "[::ffff:10.66.1.1]:80", "EHOSTUNREACH"),
    ("unreachable route", "[fd00:66:1::1]:80", "EHOSTUNREACH"),
    ("prohibit route", "10.66.2.1:80", "EACCES"),
    ("prohibit route", "[::ffff:10.66.2.1]:80", "EACCES"),
    ("prohibit route", "[fd00:66:2::1]:80", "EACCES"),
    ("blackhole route", "10.66.3.1:80", "EINVAL"),
    ("blackhole route", "[::ffff:10.66.3.1]:80", "EINVAL"),
    ("blackhole route", "[fd00:66:3::1]:80", "EINVAL"),
    ("throw route", "10.66.4.1:80", "ENETUNREACH"),
    ("throw route", "[fd00:66:4::1]:80", "ENETUNREACH"),
    (
        "a link-local address without its link",
        "[fe80::1]:80",
        "EINVAL",
    ),
];

const NO_ROUTE: Rows = &[
    ("no route", "198.51.100.9:80", "ENETUNREACH"),
    ("no route", "[::ffff:198.51.100.9]:80", "ENETUNREACH"),
    ("no route", "[2001:db8::9]:80", "ENETUNREACH"),
    ("a route", "10.2.0.9:80", "proxy:15001"),
    ("a route", "[fd00:2::9]:80", "proxy:15001"),
];

const V4_ONLY: Rows = &[
    ("IPv6", "[fd00:2::9]:80", "ENETUNREACH"),
    ("IPv6 localhost", "[::1]:80", "app:80"),
    ("IPv6 unspecified", "[::]:80", "app:80"),
    ("IPv4", "10.2.0.9:80", "proxy:15001"),
    ("IPv4", "[::ffff:10.2.0.9]:80", "proxy:15001"),
];

const V6_ONLY: Rows = &[
    ("IPv4", "10.2.0.9:80", "ENETUNREACH"),
    ("IPv4", "[::ffff:10.2.0.9]:80", "ENETUNREACH"),
    ("IPv4 localhost", "127.0.0.1:80", "app:80"),
    ("IPv4 unspecified", "0.0.0.0:80", "app:80"),
    ("IPv6", "[fd00:2::9]:80", "proxy:15001"),
];

const ODD: Rows = &[
    ("reserved", "240.0.0.1:80", "proxy:15001"),
    ("this network", "0.1.2.3:80", "proxy:15001"),
    ("IPv4-compatible IPv6", "[::10.2.0.9]:80", "proxy:15001"),
];

fn scenarios(rows: Rows, mode: ConnectMode) -> impl Iterator<Item = Scenario> {
    rows.iter().map(move |(name, to, outcome)| {
        let dial = Dial::new(Role::App, to).mode(mode);
        Scenario::dial(&format!("{name}, {mode:?}"), outcome, dial)
    })
}

fn compare(layout: Layout, rows: Rows) {
    let setup = Setup {
        layout,
        ..Setup::default()
    };
    let scenarios: Vec<_> = scenarios(rows, ConnectMode::Blocking)
        .chain(scenarios(rows, ConnectMode::NonBlocking))
        .collect();
    differential(&setup, &scenarios);
}

#[test]
fn unreachable_destinations() {
    compare(Layout::default(), UNREACHABLE);
}

#[test]
fn odd_destinations() {
    compare(Layout::default(), ODD);
}

#[test]
fn destinations_without_a_route() {
    let layout = Layout {
        default_route: false,
        ..Layout::default()
    };
    compare(layout, NO_ROUTE);
}

#[test]
fn a_pod_without_ipv6() {
    let layout = Layout {
        v6: false,
        ..Layout::default()
    };
    compare(layout, V4_ONLY);
}

#[test]
fn a_pod_without_ipv4() {
    let layout = Layout {
        v4: false,
        ..Layout::default()
    };
    compare(layout, V6_ONLY);
}

/// A bound socket keeps its source, but routing decides as if it were unbound.
#[test]
fn unreachable_destinations_from_a_bound_socket() {
    let rows = [
        ("10.1.0.3:0", "10.66.1.1:80", "EHOSTUNREACH"),
        ("10.1.0.3:0", "10.66.2.1:80", "EACCES"),
        ("10.1.0.3:0", "10.66.3.1:80", "EINVAL"),
        ("10.1.0.3:0", "10.66.4.1:80", "ENETUNREACH"),
        ("127.0.0.1:0", "10.66.1.1:80", "EHOSTUNREACH"),
        ("[fd00:1::2]:0", "[fd00:66:1::1]:80", "EHOSTUNREACH"),
        ("[fd00:1::2]:0", "[fd00:66:2::1]:80", "EACCES"),
    ];
    let scenarios = rows.map(|(from, to, outcome)| {
        let dial = Dial::new(Role::App, to).from(from);
        Scenario::dial(&format!("bound to {from}"), outcome, dial)
    });
    differential(&Setup::default(), &scenarios);
}
