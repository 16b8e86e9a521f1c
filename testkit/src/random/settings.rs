//! Random settings: a function for each kind of setting.

use proptest::{
    collection::vec,
    prelude::any,
    prop_oneof,
    sample::select,
    strategy::{BoxedStrategy, Just, Strategy},
};

use super::mostly;
use crate::settings::{Dns, Mode, Settings, Strict, items};

/// Any settings.
pub fn settings() -> impl Strategy<Value = Settings> {
    let proxy = (
        select(vec![15001, 16001]),
        select(vec![15006, 16006, 15001]),
        mostly(15008, 6, select(vec![8080, 15020, 53])),
        owners(),
        owners(),
    );
    let tproxy = (
        mostly(Mode::Redirect, 3, Just(Mode::Tproxy)),
        mostly(1337, 4, 1..1337_u32),
        mostly(133, 4, 1..250_u32),
    );
    let inbound = (
        mostly("*", 2, prop_oneof![1 => Just(""), 3 => ports()]),
        mostly("15090,15021,15020", 1, ports()),
    );
    let outbound = (
        mostly("*", 1, cidrs()),
        mostly("", 2, cidrs()),
        mostly("", 3, ports()),
        mostly("", 3, ports()),
    );
    let interfaces = (mostly("", 6, interfaces()), mostly("", 8, interfaces()));
    let groups = (
        mostly("*", 5, groups()),
        mostly("", 4, groups()),
        mostly("127.0.0.1/32", 5, loopbacks()),
    );
    let rest = (dns(), any::<bool>(), mostly(true, 4, Just(false)));
    (proxy, tproxy, inbound, outbound, interfaces, groups, rest).prop_map(
        move |(proxy, tproxy, inbound, outbound, interfaces, groups, rest)| {
            let (proxy_port, capture_port, tunnel_port, uids, gids) = proxy;
            let (mode, tproxy_mark, tproxy_table) = tproxy;
            let (inbound_ports, inbound_excluded_ports) = inbound;
            Settings {
                proxy_port,
                capture_port,
                tunnel_port,
                uids,
                gids: with_agent(gids, rest.0),
                mode,
                tproxy_mark,
                tproxy_table,
                inbound_ports,
                inbound_excluded_ports,
                outbound_cidrs: outbound.0,
                outbound_excluded_cidrs: outbound.1,
                outbound_ports: outbound.2,
                outbound_excluded_ports: outbound.3,
                excluded_interfaces: interfaces.0,
                rerouted_interfaces: interfaces.1,
                owner_groups: groups.0,
                excluded_owner_groups: groups.1,
                loopback_cidr: groups.2,
                dns: rest.0,
                drop_invalid: rest.1,
                dual_stack: rest.2,
                // Without an equivalent in iptables.
                strict: Strict::Off,
            }
        },
    )
}

/// UIDs or GIDs of the proxy.
fn owners() -> BoxedStrategy<&'static str> {
    mostly("1337", 2, list(ids(), 1..4))
}

/// Where the agent responds to queries, the proxy's group must be set, or conntrack treats its
/// responses as another process's.
fn with_agent(gids: &'static str, dns: Dns) -> &'static str {
    if dns == Dns::Off || items(gids).any(|gid| gid == "1337") {
        gids
    } else {
        format!("{gids},1337").leak()
    }
}

/// Groups, or none.
fn groups() -> BoxedStrategy<&'static str> {
    list(ids(), 0..4)
}

fn ids() -> BoxedStrategy<String> {
    select(vec!["1337", "1000", "0", "7"])
        .prop_map(str::to_owned)
        .boxed()
}

fn ports() -> BoxedStrategy<&'static str> {
    let known = select(super::flows::PORTS.to_vec()).prop_map(|port| port.to_string());
    let range = (any::<u16>(), 0..2000_u16)
        .prop_map(|(first, more)| format!("{first}:{}", first.saturating_add(more)));
    list(prop_oneof![8 => known, 1 => range].boxed(), 0..5)
}

fn cidrs() -> BoxedStrategy<&'static str> {
    const KNOWN: [&str; 19] = [
        "10.2.0.9/32",
        "10.2.0.0/16",
        "10.0.0.0/8",
        "10.96.0.1/12",
        "10.1.0.0/24",
        "10.1.0.2/32",
        "10.3.0.0/16",
        "0.0.0.0/0",
        "127.0.0.0/8",
        "127.0.0.53/32",
        "127.1.2.3/32",
        "fd00:2::9/128",
        "fd00:2::/32",
        "fd00::/16",
        "fd00:96::/32",
        "fd00:1::2/128",
        "::/0",
        "::1/128",
        "::ffff:10.2.0.0/112",
    ];
    let known = select(KNOWN.to_vec()).prop_map(str::to_owned);
    let v4 = (any::<[u8; 2]>(), 8..=32_u8)
        .prop_map(|([second, last], length)| format!("10.{second}.0.{last}/{length}"));
    list(prop_oneof![8 => known, 1 => v4].boxed(), 0..5)
}

fn interfaces() -> BoxedStrategy<&'static str> {
    let names = select(vec!["eth1", "eth0", "eth+", "lo", "net7"]);
    list(names.prop_map(str::to_owned).boxed(), 1..3)
}

fn loopbacks() -> BoxedStrategy<&'static str> {
    select(vec![
        "127.0.0.1/8",
        "127.0.0.0/30",
        "127.0.0.0/26",
        "127.0.0.2/32",
    ])
    .boxed()
}

fn dns() -> BoxedStrategy<Dns> {
    const SERVERS: [&str; 6] = [
        "10.96.0.10",
        "10.2.0.9",
        "127.0.0.53",
        "127.0.0.1",
        "fd00:96::10",
        "::1",
    ];
    let servers = select(SERVERS.to_vec()).prop_map(str::to_owned).boxed();
    prop_oneof![
        3 => Just(Dns::Off),
        1 => Just(Dns::All),
        2 => list(servers, 0..4).prop_map(Dns::Servers),
    ]
    .boxed()
}

/// Some of `items`. A list is leaked, to have the lifetime of hand-written ones.
fn list(items: BoxedStrategy<String>, size: std::ops::Range<usize>) -> BoxedStrategy<&'static str> {
    vec(items, size)
        .prop_map(|items| -> &'static str { items.join(",").leak() })
        .boxed()
}
