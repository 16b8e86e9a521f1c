//! Properties of istio-iptables that are easy to get wrong, each with the verdict that both must
//! have.

use interceptor_ebpf::Transport;
use interceptor_testkit::settings::{Dns, Mode, Settings};

use super::{Both, flow::Connection};

const REMOTE: &str = "10.2.0.9";
const OWN: &str = "10.1.0.2";
const APP: Option<(u32, u32)> = Some((1000, 1000));

/// A connection that the pod sends over TCP: on `lo` if its destination is the pod itself.
fn sent(owner: Option<(u32, u32)>, to: &str, port: u16) -> Connection {
    let is_own = to == OWN || to.starts_with("127.");
    Connection {
        is_inbound: false,
        transport: Transport::Tcp,
        source: OWN.parse().expect("an address"),
        destination: to.parse().expect("an address"),
        port,
        interface: if is_own { "lo" } else { "eth0" },
        owner,
        is_marked: false,
    }
}

fn received(port: u16) -> Connection {
    Connection {
        is_inbound: true,
        source: REMOTE.parse().expect("an address"),
        interface: "eth0",
        owner: None,
        ..sent(None, OWN, port)
    }
}

fn over_udp(connection: Connection) -> Connection {
    Connection {
        transport: Transport::Udp,
        ..connection
    }
}

#[track_caller]
fn assert_captured(settings: &Settings, rows: &[(Connection, Option<u16>)]) {
    let both = Both::new(settings);
    for (connection, port) in rows {
        assert_eq!(both.expected(connection), *port, "iptables: {connection:?}");
        assert_eq!(
            both.product.captured(connection),
            *port,
            "we: {connection:?}"
        );
    }
}

fn tproxy() -> Settings {
    Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    }
}

#[test]
fn the_tunnels_port_is_special_in_nat_only() {
    assert_captured(&Settings::default(), &[(received(15008), None)]);
    assert_captured(&tproxy(), &[(received(15008), Some(15006))]);
}

#[test]
fn every_uid_comes_before_the_first_gid() {
    let by_gid = Some((0, 1337));
    let rows = [
        (sent(by_gid, OWN, 80), None),
        (sent(by_gid, REMOTE, 80), None),
        (sent(APP, REMOTE, 80), Some(15001)),
    ];
    assert_captured(&Settings::default(), &rows);
    assert_captured(&tproxy(), &[(sent(by_gid, OWN, 80), Some(15006))]);
}

#[test]
fn only_the_first_uid_reaches_its_own_pod_through_the_proxy() {
    let settings = Settings {
        uids: "3,4",
        gids: "3,4",
        ..Settings::default()
    };
    let rows = [
        (sent(Some((3, 9)), OWN, 80), Some(15006)),
        (sent(Some((4, 9)), OWN, 80), None),
        (sent(Some((4, 9)), REMOTE, 80), None),
    ];
    assert_captured(&settings, &rows);
}

#[test]
fn packets_without_a_socket_match_inverted_owners() {
    let rows = [
        (sent(None, OWN, 80), None),
        (sent(None, REMOTE, 80), Some(15001)),
    ];
    assert_captured(&Settings::default(), &rows);
}

#[test]
fn excluded_outbound_ports_come_first_and_switch_dns_off() {
    let dns = Settings {
        dns: Dns::All,
        ..Settings::default()
    };
    let excluded = Settings {
        outbound_excluded_ports: "53",
        ..dns.clone()
    };
    let rows = |port| {
        [
            (sent(APP, REMOTE, 53), port),
            (over_udp(sent(APP, REMOTE, 53)), port),
        ]
    };
    assert_captured(&dns, &rows(Some(15053)));
    assert_captured(&excluded, &rows(None));
}

#[test]
fn excluded_destinations_come_between_dns_and_included_ports() {
    let settings = Settings {
        dns: Dns::All,
        outbound_excluded_cidrs: "10.2.0.0/16",
        outbound_ports: "80",
        ..Settings::default()
    };
    let rows = [
        (sent(APP, REMOTE, 53), Some(15053)),
        (sent(APP, REMOTE, 80), None),
    ];
    assert_captured(&settings, &rows);
}

#[test]
fn excluded_inbound_ports_count_only_where_all_are_included() {
    let all = Settings {
        inbound_excluded_ports: "80",
        ..Settings::default()
    };
    let listed = Settings {
        inbound_ports: "80",
        ..all.clone()
    };
    assert_captured(&all, &[(received(80), None)]);
    assert_captured(&listed, &[(received(80), Some(15006))]);
}

#[test]
fn without_inbound_ports_calls_of_the_proxy_are_captured() {
    let settings = Settings {
        inbound_ports: "",
        ..Settings::default()
    };
    let rows = [
        (received(80), None),
        (sent(Some((1337, 1337)), OWN, 80), Some(15006)),
    ];
    assert_captured(&settings, &rows);
}

#[test]
fn without_outbound_cidrs_the_other_rules_still_capture() {
    let settings = Settings {
        outbound_cidrs: "",
        outbound_ports: "8080",
        dns: Dns::All,
        ..Settings::default()
    };
    let rows = [
        (sent(APP, REMOTE, 80), None),
        (sent(APP, REMOTE, 8080), Some(15001)),
        (sent(APP, REMOTE, 53), Some(15053)),
        (sent(Some((1337, 1337)), OWN, 80), Some(15006)),
    ];
    assert_captured(&settings, &rows);
}

/// (That any mode but TPROXY is REDIRECT is a matter of parsing, and tested there.)
#[test]
fn outbound_connections_are_redirected_in_either_mode() {
    for settings in [Settings::default(), tproxy()] {
        assert_captured(&settings, &[(sent(APP, REMOTE, 80), Some(15001))]);
    }
}

#[test]
fn only_tcp_is_redirected_except_dns() {
    let rows = [
        (over_udp(sent(APP, REMOTE, 80)), None),
        (over_udp(sent(APP, REMOTE, 53)), None),
    ];
    assert_captured(&Settings::default(), &rows);
}

/// Of all of 127/8, only 127.0.0.1 is localhost.
#[test]
fn localhost_is_one_address() {
    let proxy = Some((1337, 1337));
    let rows = [
        (sent(proxy, "127.0.0.1", 80), None),
        (sent(proxy, "127.0.0.2", 80), Some(15006)),
        (sent(proxy, "127.0.0.6", 80), Some(15006)),
    ];
    assert_captured(&Settings::default(), &rows);
}

/// The rules that pass the pod's traffic to itself are omitted if *any* loopback CIDR is included.
#[test]
fn a_loopback_cidr_captures_the_apps_calls_to_localhost() {
    let settings = Settings {
        outbound_cidrs: "127.1.0.0/16,::1/128",
        ..Settings::default()
    };
    let rows = [
        (sent(APP, "127.1.2.3", 80), Some(15001)),
        (sent(APP, OWN, 80), None),
    ];
    assert_captured(&settings, &rows);
}
