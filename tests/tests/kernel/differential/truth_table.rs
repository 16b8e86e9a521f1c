//! The default truth table: every owner to every kind of destination, in IPv4, in IPv6, and in
//! IPv4 through an IPv6 socket.

use interceptor_testkit::{
    scenario::{Dial, Scenario, differential},
    world::{Role, Setup},
};

/// The servers that respond to an app, to the proxy identified by its UID, and to the proxy
/// identified by its GID only.
type Outcomes = [&'static str; 3];

const CAPTURED_OUTBOUND: Outcomes = ["proxy:15001", "remote:80", "remote:80"];
const CAPTURED_SELF: Outcomes = ["app:80", "proxy:15006", "app:80"];
const LOCALHOST: Outcomes = ["app:80"; 3];

struct Row {
    name: &'static str,
    from: Option<&'static str>,
    to: &'static str,
    responses: Outcomes,
}

const fn row(name: &'static str, to: &'static str, responses: Outcomes) -> Row {
    Row {
        name,
        from: None,
        to,
        responses,
    }
}

const fn bound(
    name: &'static str,
    from: &'static str,
    to: &'static str,
    responses: Outcomes,
) -> Row {
    Row {
        name,
        from: Some(from),
        to,
        responses,
    }
}

const IPV4: &[Row] = &[
    row("remote", "10.2.0.9:80", CAPTURED_OUTBOUND),
    row("remote on the link", "10.1.0.1:80", CAPTURED_OUTBOUND),
    row(
        "remote by another interface",
        "10.4.0.1:80",
        CAPTURED_OUTBOUND,
    ),
    row(
        "no host on the link",
        "10.1.0.77:80",
        ["proxy:15001", "silence", "silence"],
    ),
    row(
        "remote without a listener",
        "10.2.0.9:81",
        ["proxy:15001", "ECONNREFUSED", "ECONNREFUSED"],
    ),
    row(
        "remote tunnel port",
        "10.2.0.9:15008",
        ["proxy:15001", "remote:15008", "remote:15008"],
    ),
    row(
        "remote status port",
        "10.2.0.9:15020",
        ["proxy:15001", "remote:15020", "remote:15020"],
    ),
    row(
        "remote proxy port",
        "10.2.0.9:15006",
        ["proxy:15001", "remote:15006", "remote:15006"],
    ),
    row("own address", "10.1.0.2:80", CAPTURED_SELF),
    row("own secondary address", "10.1.0.3:80", CAPTURED_SELF),
    row("other interface's address", "10.3.0.2:80", CAPTURED_SELF),
    row(
        "own address without a listener",
        "10.1.0.2:81",
        ["ECONNREFUSED", "proxy:15006", "ECONNREFUSED"],
    ),
    row("own tunnel port", "10.1.0.2:15008", ["app:15008"; 3]),
    row(
        "own status port",
        "10.1.0.2:15020",
        ["app:15020", "proxy:15006", "app:15020"],
    ),
    row(
        "own outbound port",
        "10.1.0.2:15001",
        ["proxy:15001", "proxy:15006", "proxy:15001"],
    ),
    row("own inbound port", "10.1.0.2:15006", ["proxy:15006"; 3]),
    row("localhost", "127.0.0.1:80", LOCALHOST),
    row(
        "localhost without a listener",
        "127.0.0.1:81",
        ["ECONNREFUSED"; 3],
    ),
    row(
        "localhost's outbound port",
        "127.0.0.1:15001",
        ["proxy:15001"; 3],
    ),
    row(
        "localhost's inbound port",
        "127.0.0.1:15006",
        ["proxy:15006"; 3],
    ),
    row("other loopback", "127.0.0.2:80", CAPTURED_SELF),
    row(
        "last loopback before the stand-ins",
        "127.127.255.254:80",
        CAPTURED_SELF,
    ),
    row(
        "passthrough address",
        "127.0.0.6:15002",
        ["app:15002", "proxy:15006", "app:15002"],
    ),
    row("unspecified", "0.0.0.0:80", LOCALHOST),
    bound("own address", "127.0.0.6:0", "10.1.0.2:80", ["app:80"; 3]),
    bound("localhost", "127.0.0.6:0", "127.0.0.1:80", ["app:80"; 3]),
    bound(
        "passthrough address",
        "127.0.0.6:0",
        "127.0.0.6:80",
        ["app:80"; 3],
    ),
    bound("unspecified", "127.0.0.6:0", "0.0.0.0:80", ["app:80"; 3]),
    bound("unspecified", "10.1.0.3:0", "0.0.0.0:80", CAPTURED_SELF),
    bound("own address", "127.0.0.1:0", "10.1.0.2:80", CAPTURED_SELF),
    bound(
        "passthrough address",
        "127.0.0.1:0",
        "127.0.0.6:15002",
        ["app:15002", "proxy:15006", "app:15002"],
    ),
    bound("remote", "127.0.0.6:0", "10.2.0.9:80", ["EINVAL"; 3]),
    bound("remote", "127.0.0.1:0", "10.2.0.9:80", ["EINVAL"; 3]),
];

const IPV6: &[Row] = &[
    row("remote", "[fd00:2::9]:80", CAPTURED_OUTBOUND),
    row("remote on the link", "[fd00:1::1]:80", CAPTURED_OUTBOUND),
    row(
        "remote by another interface",
        "[fd00:4::1]:80",
        CAPTURED_OUTBOUND,
    ),
    row(
        "no host on the link",
        "[fd00:1::77]:80",
        ["proxy:15001", "silence", "silence"],
    ),
    row(
        "remote without a listener",
        "[fd00:2::9]:81",
        ["proxy:15001", "ECONNREFUSED", "ECONNREFUSED"],
    ),
    row(
        "remote tunnel port",
        "[fd00:2::9]:15008",
        ["proxy:15001", "remote:15008", "remote:15008"],
    ),
    row(
        "remote status port",
        "[fd00:2::9]:15020",
        ["proxy:15001", "remote:15020", "remote:15020"],
    ),
    row("own address", "[fd00:1::2]:80", CAPTURED_SELF),
    row("own second address", "[fd00:1::3]:80", CAPTURED_SELF),
    row("other interface's address", "[fd00:3::2]:80", CAPTURED_SELF),
    row(
        "own address without a listener",
        "[fd00:1::2]:81",
        ["ECONNREFUSED", "proxy:15006", "ECONNREFUSED"],
    ),
    row("own tunnel port", "[fd00:1::2]:15008", ["app:15008"; 3]),
    row(
        "own status port",
        "[fd00:1::2]:15020",
        ["app:15020", "proxy:15006", "app:15020"],
    ),
    row(
        "own outbound port",
        "[fd00:1::2]:15001",
        ["proxy:15001", "proxy:15006", "proxy:15001"],
    ),
    row("own inbound port", "[fd00:1::2]:15006", ["proxy:15006"; 3]),
    row("localhost", "[::1]:80", LOCALHOST),
    row(
        "localhost without a listener",
        "[::1]:81",
        ["ECONNREFUSED"; 3],
    ),
    row(
        "localhost's outbound port",
        "[::1]:15001",
        ["proxy:15001"; 3],
    ),
    // The source of a connection to ::6 is its own address, unless bound.
    row("passthrough address", "[::6]:15002", ["app:15002"; 3]),
    row("unspecified", "[::]:80", LOCALHOST),
    bound("own address", "[::6]:0", "[fd00:1::2]:80", ["app:80"; 3]),
    bound("localhost", "[::6]:0", "[::1]:80", ["app:80"; 3]),
    bound("passthrough address", "[::6]:0", "[::6]:80", ["app:80"; 3]),
    bound("unspecified", "[::6]:0", "[::]:80", ["app:80"; 3]),
    bound("unspecified", "[fd00:1::3]:0", "[::]:80", LOCALHOST),
    bound("own address", "[::1]:0", "[fd00:1::2]:80", CAPTURED_SELF),
    bound(
        "passthrough address",
        "[::1]:0",
        "[::6]:15002",
        ["app:15002", "proxy:15006", "app:15002"],
    ),
    // No outside host has a route to ::6.
    bound(
        "remote",
        "[::6]:0",
        "[fd00:2::9]:80",
        ["proxy:15001", "silence", "silence"],
    ),
];

/// `text` in the notation of an IPv6 socket.
fn mapped(text: &str) -> String {
    let (ip, port) = text.split_once(':').expect("an address has a port");
    format!("[::ffff:{ip}]:{port}")
}

fn scenario(role: Role, row: &Row, is_mapped: bool) -> Scenario {
    let write = |text: &str| {
        if is_mapped {
            mapped(text)
        } else {
            text.to_owned()
        }
    };
    let mut dial = Dial::new(role, &write(row.to));
    let bound = row.from.map(write);
    if let Some(from) = &bound {
        dial = dial.from(from);
    }
    let bound = bound.map_or(String::new(), |from| format!(", bound to {from}"));
    let name = format!("{role:?} dials {}{bound}", row.name);
    let [app, proxy, gid_only] = row.responses;
    let outcome = match role {
        Role::Proxy | Role::ProxyUid => proxy,
        Role::ProxyGid => gid_only,
        _ => app,
    };
    Scenario::dial(&name, outcome, dial)
}

fn compare(role: Role) {
    let v4 = IPV4.iter().map(|row| scenario(role, row, false));
    let v6 = IPV6.iter().map(|row| scenario(role, row, false));
    let mapped = IPV4.iter().map(|row| scenario(role, row, true));
    let scenarios: Vec<_> = v4.chain(v6).chain(mapped).collect();
    differential(&Setup::default(), &scenarios);
}

#[test]
fn an_app() {
    compare(Role::App);
}

#[test]
fn root() {
    compare(Role::Root);
}

#[test]
fn the_proxy_by_uid_and_gid() {
    compare(Role::Proxy);
}

#[test]
fn the_proxy_by_uid() {
    compare(Role::ProxyUid);
}

#[test]
fn the_proxy_by_gid() {
    compare(Role::ProxyGid);
}
