//! Source ports: one for several destinations, and fewer than there are connections.

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::protocol::{Family, Introduction, Protocol, Reply, Request, SocketOption},
    scenario::{Dial, Run, Scenario, address, differential},
    world::{Role, Setup},
};

const MANY_V4: [&str; 5] = [
    "10.2.0.9:80",
    "10.2.0.10:80",
    "10.2.0.11:80",
    "10.96.0.10:80",
    "10.2.0.9:443",
];

const MANY_V6: [&str; 5] = [
    "[fd00:2::9]:80",
    "[fd00:2::10]:80",
    "[fd00:2::11]:80",
    "[fd00:96::10]:80",
    "[fd00:2::9]:443",
];

fn reusing(role: Role, from: &str, to: &str) -> Dial {
    Dial::new(role, to)
        .with(SocketOption::ReuseAddress)
        .from(from)
}

#[test]
fn one_port_for_several_destinations() {
    let scenarios = [
        ("10.1.0.2:20001", &MANY_V4),
        ("0.0.0.0:20002", &MANY_V4),
        ("[fd00:1::2]:20003", &MANY_V6),
        ("[::]:20004", &MANY_V6),
    ]
    .map(|(from, destinations)| {
        Scenario::new(format!("from {from}"), move |run| {
            for to in destinations {
                run.label(format!("to {to}:"));
                one_of_several(run, from, to)?;
            }
            Ok(())
        })
    });
    differential(&Setup::default(), &scenarios);
}

/// Behind iptables all of these connect from one port to the proxy's one, which conntrack remaps:
/// the peer's port is in the list of known differences.
fn one_of_several(run: &mut Run<'_>, from: &str, to: &str) -> Result<()> {
    let app = run.actor(Role::App)?;
    let dial = reusing(Role::App, from, to);
    let socket = dial.open(run, app)?.context("bound")?;
    let address = address(to);
    run.perform("connect", app, &Request::Connect { socket, address })?;
    run.record_names(app, socket)?;
    record_all_but_the_port(run, app.must(&Request::ReceiveLine { socket })?)
}

fn record_all_but_the_port(run: &mut Run<'_>, reply: Reply) -> Result<()> {
    let Reply::Data(line) = reply else {
        return Err(anyhow::anyhow!("no introduction"));
    };
    let introduction: Introduction = serde_json::from_str(&line).context(line)?;
    let peer = address(&introduction.peer);
    run.record("server's peer without its port", peer.ip().to_string());
    run.record("server's local", introduction.local);
    run.record("server's original at SOL_IP", introduction.original_v4);
    run.record("server's original at SOL_IPV6", introduction.original_v6);
    run.set_outcome(&introduction.server);
    run.expect_outcome("proxy:15001");
    Ok(())
}

#[test]
fn one_port_twice() {
    let scenarios = [
        Scenario::new("to one destination", |run| {
            reusing(Role::App, "10.1.0.2:20001", "10.2.0.9:80").execute(run)?;
            run.label("again");
            reusing(Role::App, "10.1.0.2:20001", "10.2.0.9:80").execute(run)?;
            run.expect_outcome("EADDRNOTAVAIL");
            Ok(())
        }),
        Scenario::new("to one destination, IPv6", |run| {
            reusing(Role::App, "[fd00:1::2]:20002", "[fd00:2::9]:80").execute(run)?;
            run.label("again");
            reusing(Role::App, "[fd00:1::2]:20002", "[fd00:2::9]:80").execute(run)?;
            run.expect_outcome("EADDRNOTAVAIL");
            Ok(())
        }),
        Scenario::new(
            "by an app and the proxy, to different destinations",
            |run| {
                reusing(Role::App, "10.1.0.2:20003", "10.2.0.9:80").execute(run)?;
                run.label("the proxy:");
                reusing(Role::Proxy, "10.1.0.2:20003", "10.2.0.10:80").execute(run)?;
                run.expect_outcome("remote:80");
                Ok(())
            },
        ),
        Scenario::new(
            "by the proxy and an app, to different destinations",
            |run| {
                reusing(Role::Proxy, "10.1.0.2:20004", "10.2.0.9:80").execute(run)?;
                run.label("an app:");
                reusing(Role::App, "10.1.0.2:20004", "10.2.0.10:80").execute(run)?;
                run.expect_outcome("proxy:15001");
                Ok(())
            },
        ),
        Scenario::new("without SO_REUSEADDR", |run| {
            let dial = |to| Dial::new(Role::App, to).from("10.1.0.2:20005");
            dial("10.2.0.9:80").execute(run)?;
            run.label("again");
            dial("10.2.0.10:80").execute(run)?;
            run.expect_outcome("EADDRINUSE");
            Ok(())
        }),
    ];
    differential(&Setup::default(), &scenarios);
}

/// Bound to one port, one connection after the other, while conntrack still has the first.
#[test]
fn one_port_repeatedly() {
    let scenarios = ["10.2.0.9:80", "10.1.0.2:80"].map(|to| {
        Scenario::new(format!("to {to}"), move |run| {
            let app = run.actor(Role::App)?;
            for turn in 0..3 {
                run.label(format!("turn {turn}:"));
                let socket = reusing(Role::App, "10.1.0.2:20010", to).execute(run)?;
                let Some(socket) = socket else { continue };
                let option = SocketOption::ResetOnClose;
                app.must(&Request::Set { socket, option })?;
                app.must(&Request::Close { socket })?;
            }
            Ok(())
        })
    });
    differential(&Setup::default(), &scenarios);
}

/// Twenty ports.
const FEW_PORTS: &[(&str, &str)] = &[("net.ipv4.ip_local_port_range", "40000 40019")];

/// Connects to every destination until the ports are used up. Records the number of connections to
/// each, the errno that follows, and that every server got the right destination.
fn use_up(run: &mut Run<'_>, destinations: &[&str]) -> Result<()> {
    let app = run.actor(Role::App)?;
    for to in destinations {
        run.label(format!("to {to}:"));
        let address = address(to);
        let mut responded = 0;
        let errno = loop {
            let socket = app.socket(Family::of(address), Protocol::Tcp)?;
            match app.call(&Request::Connect { socket, address })? {
                Reply::Error(errno) => break errno,
                _ => responded += 1,
            }
            check_introduction(run, to, app.must(&Request::ReceiveLine { socket })?)?;
            if responded > 100 {
                break "none".to_owned();
            }
        };
        run.record("connections", responded.to_string());
        run.record("then", errno);
        run.expect("twenty connections", responded == 20);
    }
    Ok(())
}

fn check_introduction(run: &mut Run<'_>, to: &str, reply: Reply) -> Result<()> {
    let Reply::Data(line) = reply else {
        return Err(anyhow::anyhow!("no introduction"));
    };
    let introduction: Introduction = serde_json::from_str(&line).context(line)?;
    let holds = introduction.server == "proxy:15001"
        && [introduction.original_v4, introduction.original_v6].contains(&to.to_owned());
    run.expect("the proxy got the original destination", holds);
    Ok(())
}

#[test]
fn more_connections_than_ports() {
    let setup = Setup {
        sysctls: FEW_PORTS,
        ..Setup::default()
    };
    let scenarios = [
        Scenario::new("IPv4", |run| use_up(run, &MANY_V4)),
        Scenario::new("IPv6", |run| use_up(run, &MANY_V6)),
    ];
    differential(&setup, &scenarios);
}
