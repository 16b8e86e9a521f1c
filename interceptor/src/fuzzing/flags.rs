//! The properties of settings.

use std::net::{IpAddr, SocketAddr};

use clap::{Args as _, Command, FromArgMatches as _};
use interceptor_ebpf::{Owner, Transport};

use super::network;
use crate::{
    explain::{Direction, Outcome, Pod, Query, effective},
    netns::routes::RouteLookup,
    rules::Rule,
    settings::{IstioFlags, Settings, Strict},
};

/// The bytes that describe a connection.
const CONNECTION: usize = 22;

/// A connection in `CONNECTION` bytes, then a flag or a variable on each line: the settings survive a
/// round trip through a record, and the verdict is that of the equivalent rules.
pub fn flags(data: &[u8]) {
    let Some((connection, text)) = data.split_first_chunk::<CONNECTION>() else {
        return;
    };
    let Some(settings) = str::from_utf8(text).ok().and_then(parse) else {
        return;
    };
    let text = serde_json::to_vec(&settings).expect("settings as JSON");
    let again: Settings = serde_json::from_slice(&text).expect("settings");
    assert_eq!(again, settings);
    // Strict mode has no equivalent rules.
    let settings = Settings {
        strict: Strict::Off,
        ..settings
    };
    let (query, route) = connection_of(*connection, &settings);
    let pod = Pod::new(settings, network());
    let explanation = pod.explain(&query, route);
    if is_inbound_on_loopback(&query) {
        explanation.expect_err("a connection of the pod itself is not inbound");
        return;
    }
    let explanation = explanation.expect("an interface");
    assert_eq!(
        matches!(explanation.outcome, Outcome::Captured { .. }),
        explanation.rule.as_ref().is_some_and(captures),
        "{query:?}, {route:?}: {explanation:?}"
    );
}

/// A line that starts with a hyphen is an argument, another one `NAME=VALUE`.
fn parse(text: &str) -> Option<Settings> {
    let (arguments, variables): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.starts_with('-'));
    let command = Command::new("istio-iptables")
        .no_binary_name(true)
        .args_override_self(true)
        .disable_help_flag(true);
    let matches = IstioFlags::augment_args(command).try_get_matches_from(arguments);
    let flags = IstioFlags::from_arg_matches(&matches.ok()?).ok()?;
    let variable = |name: &str| {
        let mut variables = variables.iter().filter_map(|line| line.split_once('='));
        let found = variables.find(|(variable, _)| *variable == name);
        found.map(|(_, value)| value.to_owned())
    };
    let parsed = Settings::from_flags_and(&flags, &variable, None);
    Some(parsed.ok()?.settings)
}

fn connection_of(bytes: [u8; CONNECTION], settings: &Settings) -> (Query, RouteLookup) {
    let [kind, uid, gid, low, high, source, address @ ..] = bytes;
    let is = |bit: u8| kind & 1 << bit != 0;
    let [a, b, c, d, ..] = address;
    let address: IpAddr = if is(0) {
        address.into()
    } else {
        [a, b, c, d].into()
    };
    let transport = if is(1) {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    let direction = if is(2) {
        let interface = Some(if is(3) { "lo" } else { "eth0" }.to_owned());
        Direction::Inbound { interface }
    } else {
        let id = |byte: u8, proxy: &[u32]| match byte {
            0 => 0,
            1 => 1000,
            other => proxy.get(usize::from(other - 2)).copied().unwrap_or(1337),
        };
        let owner = Owner {
            uid: id(uid, settings.proxy_uids.as_slice()),
            gid: id(gid, settings.proxy_gids.as_slice()),
        };
        Direction::Outbound {
            owner,
            source: None,
        }
    };
    let query = Query {
        transport,
        destination: effective(SocketAddr::new(address, u16::from_le_bytes([low, high]))),
        direction,
    };
    let source = Some(own_address(source, query.destination.ip()));
    let route = if is(3) {
        RouteLookup::Loopback { source }
    } else {
        RouteLookup::Out {
            source,
            loopback_error: None,
            interface: 2,
        }
    };
    (query, route)
}

fn is_inbound_on_loopback(query: &Query) -> bool {
    matches!(&query.direction, Direction::Inbound { interface: Some(name) } if name == "lo")
}

/// The source address of the route, of the family of the destination.
fn own_address(byte: u8, destination: IpAddr) -> IpAddr {
    match (destination, byte) {
        (IpAddr::V4(_), 0) => [10, 1, 0, 2].into(),
        (IpAddr::V4(_), last) => [127, 0, 0, last].into(),
        (IpAddr::V6(_), last) => [0, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

/// Whether a rule sends what it matches to the proxy.
fn captures(rule: &Rule) -> bool {
    let (_, target) = rule.specification.rsplit_once("-j ").unwrap_or_default();
    let targets = [
        "ISTIO_REDIRECT",
        "ISTIO_IN_REDIRECT",
        "ISTIO_TPROXY",
        "REDIRECT",
    ];
    let name = target.split(' ').next().unwrap_or_default();
    targets.contains(&name)
}
