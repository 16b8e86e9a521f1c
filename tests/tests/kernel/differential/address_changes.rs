//! The pod's addresses change after the interception started. `-o lo` depends on the current
//! addresses.

use interceptor_testkit::{
    scenario::{Dial, Scenario, differential},
    settings::Settings,
    world::{Role, Setup},
};

/// The pod loses an address of each family; routing selects neither as a source.
const LOSE: &str = "addr del 10.1.0.3/24 dev eth0\naddr del fd00:1::2/64 dev eth0";
/// The peer gets them.
const ASSIGN_TO_PEER: &str = "addr add 10.1.0.3/24 dev eth0\naddr add fd00:1::2/64 dev eth0 nodad";
/// The pod gets an address of each family.
const GAIN: &str = "addr add 10.1.0.7/24 dev eth0\naddr add fd00:1::7/64 dev eth0 nodad";

/// Runs `ip` in the pod.
fn pod(commands: &'static str) -> Scenario {
    Scenario::new(commands, move |run| run.world().pod().ip(commands))
}

/// Runs `ip` in the peer.
fn peer(commands: &'static str) -> Scenario {
    Scenario::new(commands, move |run| run.world().peer().ip(commands))
}

fn dial(outcome: &'static str, role: Role, to: &str) -> Scenario {
    Scenario::dial(&format!("{role:?} dials"), outcome, Dial::new(role, to))
}

fn dial_from(outcome: &'static str, role: Role, from: &str, to: &str) -> Scenario {
    let dial = Dial::new(role, to).from(from);
    Scenario::dial(&format!("{role:?} dials from {from}"), outcome, dial)
}

#[test]
fn an_address_that_the_pod_lost_is_captured_outbound() {
    let scenarios = [
        dial("app:80", Role::App, "10.1.0.3:80"),
        dial("app:80", Role::App, "[fd00:1::2]:80"),
        pod(LOSE),
        // No host has it.
        dial("proxy:15001", Role::App, "10.1.0.3:80"),
        dial("proxy:15001", Role::App, "[fd00:1::2]:80"),
        dial("proxy:15001", Role::App, "[::ffff:10.1.0.3]:80"),
        peer(ASSIGN_TO_PEER),
        dial("proxy:15001", Role::App, "10.1.0.3:80"),
        dial("proxy:15001", Role::App, "[fd00:1::2]:80"),
        dial("remote:80", Role::Proxy, "10.1.0.3:80"),
        dial("remote:80", Role::Proxy, "[fd00:1::2]:80"),
        // The pod's remaining addresses are still its own.
        dial("app:80", Role::App, "10.1.0.2:80"),
        dial("app:80", Role::App, "[fd00:1::3]:80"),
        dial("proxy:15006", Role::Proxy, "10.3.0.2:80"),
        dial("proxy:15006", Role::Proxy, "[fd00:3::2]:80"),
        dial("app:80", Role::App, "127.0.0.2:80"),
        dial("proxy:15006", Role::Proxy, "127.0.0.2:80"),
        dial("app:80", Role::App, "[::1]:80"),
        dial("proxy:15001", Role::App, "10.2.0.9:80"),
        dial("proxy:15001", Role::App, "[fd00:2::9]:80"),
    ];
    differential(&Setup::default(), &scenarios);
}

#[test]
fn a_client_with_a_former_pod_address_is_inbound() {
    let scenarios = [
        pod(LOSE),
        peer(ASSIGN_TO_PEER),
        dial_from("proxy:15006", Role::Client, "10.1.0.3:0", "10.1.0.2:8080"),
        dial_from(
            "proxy:15006",
            Role::Client,
            "[fd00:1::2]:0",
            "[fd00:1::3]:8080",
        ),
        dial_from("app:15020", Role::Client, "10.1.0.3:0", "10.1.0.2:15020"),
        dial("proxy:15006", Role::Client, "10.1.0.2:8080"),
        dial("proxy:15006", Role::Client, "[fd00:1::3]:8080"),
    ];
    differential(&Setup::default(), &scenarios);
}

#[test]
fn a_new_address_of_the_pod_is_its_own() {
    let scenarios = [
        pod(GAIN),
        dial("app:80", Role::App, "10.1.0.7:80"),
        dial("app:80", Role::App, "[fd00:1::7]:80"),
        dial("app:80", Role::App, "[::ffff:10.1.0.7]:80"),
        dial("app:80", Role::ProxyGid, "10.1.0.7:80"),
        dial_from("proxy:15006", Role::Proxy, "10.1.0.7:0", "10.1.0.7:80"),
        dial_from(
            "proxy:15006",
            Role::Proxy,
            "[fd00:1::7]:0",
            "[fd00:1::7]:80",
        ),
        dial_from("proxy:15006", Role::Proxy, "10.1.0.2:0", "10.1.0.7:80"),
        dial_from(
            "proxy:15006",
            Role::Proxy,
            "[fd00:1::2]:0",
            "[fd00:1::7]:80",
        ),
        // And a client of the pod with it.
        dial_from("app:80", Role::App, "10.1.0.7:0", "10.1.0.2:80"),
        dial_from("app:80", Role::App, "[fd00:1::7]:0", "[fd00:1::2]:80"),
        dial_from("proxy:15001", Role::App, "10.1.0.7:0", "10.2.0.9:80"),
        dial_from("proxy:15001", Role::App, "[fd00:1::7]:0", "[fd00:2::9]:80"),
        dial("proxy:15006", Role::Client, "10.1.0.7:8080"),
        dial("proxy:15006", Role::Client, "[fd00:1::7]:8080"),
    ];
    differential(&Setup::default(), &scenarios);
}

/// IPv4 addresses stay the pod's own while their device is down; IPv6 addresses are deleted.
#[test]
fn ipv6_addresses_are_lost_when_their_device_is_down() {
    let scenarios = [
        pod("link set eth1 down"),
        dial("app:80", Role::App, "10.3.0.2:80"),
        dial("proxy:15006", Role::Proxy, "10.3.0.2:80"),
        dial("proxy:15001", Role::App, "[fd00:3::2]:80"),
        dial("app:80", Role::App, "[fd00:1::2]:80"),
        pod("link set eth1 up"),
        dial("app:80", Role::App, "10.3.0.2:80"),
        dial("proxy:15001", Role::App, "[fd00:3::2]:80"),
    ];
    differential(&Setup::default(), &scenarios);
}

/// A sysctl makes the kernel keep them: then they exist, but are not the pod's own until the device
/// is up again.
#[test]
fn an_ipv6_address_of_a_down_device_is_not_the_pods_own() {
    let setup = Setup {
        sysctls: &[("net.ipv6.conf.eth1.keep_addr_on_down", "1")],
        ..Setup::default()
    };
    let scenarios = [
        pod("link set eth1 down"),
        // An unbound socket would use the kept address, and the reply would have no route.
        dial_from("proxy:15001", Role::App, "[fd00:1::3]:0", "[fd00:3::2]:80"),
        pod("link set eth1 up"),
        dial("app:80", Role::App, "[fd00:3::2]:80"),
        dial("proxy:15006", Role::Proxy, "[fd00:3::2]:80"),
    ];
    differential(&setup, &scenarios);
}

/// Until the kernel knows that no other host has an IPv6 address, it is not the pod's own.
#[test]
fn a_tentative_ipv6_address_is_not_the_pods_own() {
    let setup = Setup {
        sysctls: &[
            ("net.ipv6.conf.eth0.accept_dad", "1"),
            ("net.ipv6.conf.eth0.dad_transmits", "100"),
        ],
        ..Setup::default()
    };
    let scenarios = [
        pod("addr add fd00:1::7/64 dev eth0"),
        dial("proxy:15001", Role::App, "[fd00:1::7]:80"),
        dial("app:80", Role::App, "[fd00:1::2]:80"),
    ];
    differential(&setup, &scenarios);
}

/// The outgoing interface of a destination also depends on the current routes: `-c` excludes the
/// interface, not the destinations that were routed to it.
#[test]
fn a_destination_off_an_excluded_interface_is_captured() {
    let setup = Setup::with(Settings {
        excluded_interfaces: "eth1",
        ..Settings::default()
    });
    let scenarios = [
        dial("remote:80", Role::App, "10.4.0.1:80"),
        dial("remote:80", Role::App, "[fd00:4::1]:80"),
        pod("route replace 10.4.0.0/16 via 10.1.0.1 dev eth0\n\
             route replace fd00:4::/64 via fd00:1::1 dev eth0"),
        // Bound: the source that routing selected before belongs to the other interface.
        dial_from("proxy:15001", Role::App, "10.1.0.2:0", "10.4.0.1:80"),
        dial_from("proxy:15001", Role::App, "[fd00:1::2]:0", "[fd00:4::1]:80"),
        dial_from(
            "proxy:15001",
            Role::App,
            "[::ffff:10.1.0.2]:0",
            "[::ffff:10.4.0.1]:80",
        ),
        // The proxy's own connections pass, on any interface.
        dial_from("remote:80", Role::Proxy, "10.1.0.2:0", "10.4.0.1:80"),
        dial_from("remote:80", Role::Proxy, "[fd00:1::2]:0", "[fd00:4::1]:80"),
    ];
    differential(&setup, &scenarios);
}
