//! Every mode of connecting.

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request},
    scenario::{ConnectMode, Dial, Run, Scenario, address, differential},
    world::{Role, Setup},
};

/// One destination of each kind, with the server that responds.
const KINDS: [(Role, &str, &str); 10] = [
    (Role::App, "10.2.0.9:80", "proxy:15001"),
    (Role::App, "[fd00:2::9]:80", "proxy:15001"),
    (Role::App, "[::ffff:10.2.0.9]:80", "proxy:15001"),
    (Role::App, "10.1.0.2:80", "app:80"),
    (Role::App, "127.0.0.1:80", "app:80"),
    (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
    (Role::Proxy, "[fd00:1::2]:80", "proxy:15006"),
    (Role::Proxy, "[::ffff:10.1.0.2]:80", "proxy:15006"),
    (Role::Proxy, "10.2.0.9:80", "remote:80"),
    (Role::Proxy, "[fd00:2::9]:80", "remote:80"),
];

/// Every kind of destination, `times` times, then with the proxy down.
fn compare(setup: &Setup, times: u32, form: impl Fn(Dial) -> Dial) {
    let mut scenarios = Vec::new();
    for (role, to, outcome) in KINDS {
        for _ in 0..times {
            scenarios.push(Scenario::dial(
                &format!("{role:?}"),
                outcome,
                form(Dial::new(role, to)),
            ));
        }
    }
    for (role, to, outcome) in KINDS
        .into_iter()
        .filter(|(.., role)| role.starts_with("proxy"))
    {
        let dial = form(Dial::new(role, to));
        scenarios.push(Scenario::new(
            format!("{role:?} while {outcome} is down ({to})"),
            move |run| {
                run.world().stop_proxy()?;
                dial.execute(run)?;
                run.expect_outcome("ECONNREFUSED");
                Ok(())
            },
        ));
    }
    differential(setup, &scenarios);
}

#[test]
fn non_blocking() {
    compare(&Setup::default(), 1, |dial| {
        dial.mode(ConnectMode::NonBlocking)
    });
}

#[test]
fn fast_open_with_the_first_data() {
    compare(&Setup::default(), 2, |dial| {
        dial.mode(ConnectMode::FastOpen)
    });
}

#[test]
fn fast_open_by_connect() {
    compare(&Setup::default(), 2, |dial| {
        dial.mode(ConnectMode::FastOpenConnect)
    });
}

/// On client and server: data in the first packet without a cookie.
const ALWAYS_FAST: &[(&str, &str)] = &[("net.ipv4.tcp_fastopen", "1543")];

#[test]
fn fast_open_with_the_first_data_in_the_first_packet() {
    let setup = Setup {
        sysctls: ALWAYS_FAST,
        ..Setup::default()
    };
    compare(&setup, 2, |dial| dial.mode(ConnectMode::FastOpen));
}

#[test]
fn fast_open_by_connect_with_the_first_data_in_the_first_packet() {
    let setup = Setup {
        sysctls: ALWAYS_FAST,
        ..Setup::default()
    };
    compare(&setup, 2, |dial| dial.mode(ConnectMode::FastOpenConnect));
}

/// Apps only: the proxy falls back to TCP.
#[test]
fn multipath_tcp_clients() {
    let apps = KINDS.into_iter().filter(|(role, ..)| *role == Role::App);
    let scenarios: Vec<_> = apps
        .flat_map(|(role, to, outcome)| {
            [ConnectMode::Blocking, ConnectMode::NonBlocking].map(|mode| {
                let dial = Dial::new(role, to).over(Protocol::Mptcp).mode(mode);
                Scenario::dial(&format!("{role:?}, {mode:?}"), outcome, dial)
            })
        })
        .collect();
    differential(&Setup::default(), &scenarios);
}

/// Opens a socket as Go does: MPTCP, else TCP.
fn multipath_if_possible(run: &Run<'_>, role: Role, family: Family) -> Result<u32> {
    let actor = run.actor(role)?;
    let protocol = Protocol::Mptcp;
    match actor.call(&Request::Socket { family, protocol })? {
        Reply::Socket(socket) => Ok(socket),
        _ => actor.socket(family, Protocol::Tcp),
    }
}

#[test]
fn a_proxy_that_prefers_multipath_tcp() {
    let clients = KINDS
        .into_iter()
        .filter(|(role, _, outcome)| *role == Role::Proxy && outcome.starts_with("remote"))
        .map(|(role, to, outcome)| {
            Scenario::new(format!("{role:?} dials {to}"), move |run| {
                let dial = Dial::new(role, to);
                let socket = multipath_if_possible(run, role, Family::of(address(to)))?;
                dial.execute_on(run, socket)?;
                run.expect_outcome(outcome);
                Ok(())
            })
        });
    let listeners = [
        ("0.0.0.0:15001", "10.2.0.9:80"),
        ("[::]:15001", "[fd00:2::9]:80"),
    ]
    .map(|(listener, to)| {
        Scenario::new(
            format!("listens on {listener}, an app dials {to}"),
            move |run| {
                run.world().stop_proxy()?;
                let proxy = run.actor(Role::ProxyServer)?;
                let at = address(listener);
                let socket = multipath_if_possible(run, Role::ProxyServer, Family::of(at))?;
                proxy.must(&Request::Bind {
                    socket,
                    address: at,
                })?;
                proxy.must(&Request::Listen { socket })?;
                proxy.must(&Request::Serve { socket })?;
                run.dial(Role::App, to)?;
                run.expect_outcome("proxy:15001");
                proxy.must(&Request::Close { socket }).map(drop)
            },
        )
    });
    let scenarios: Vec<_> = clients.chain(listeners).collect();
    differential(&Setup::default(), &scenarios);
}

#[test]
fn a_reused_socket() {
    let scenarios = [
        Scenario::new("after a refused connect, when the proxy is back", |run| {
            after_refusal(run, "10.2.0.9:80", "10.2.0.9:80")
        }),
        Scenario::new("after a refused connect, to another destination", |run| {
            after_refusal(run, "10.2.0.9:80", "10.9.0.1:80")
        }),
        Scenario::new("after a refused connect, to localhost", |run| {
            after_refusal(run, "10.2.0.9:80", "127.0.0.1:80")
        }),
        Scenario::new("after a refused connect, IPv6", |run| {
            after_refusal(run, "[fd00:2::9]:80", "[fd00:9::1]:80")
        }),
        Scenario::new("after a refused connect, IPv4 by IPv6", |run| {
            after_refusal(run, "[::ffff:10.2.0.9]:80", "[::ffff:10.9.0.1]:80")
        }),
        Scenario::new("after AF_UNSPEC, to another destination", |run| {
            after_disconnect(run, "10.2.0.9:80", "10.9.0.1:80")
        }),
        Scenario::new("after AF_UNSPEC, to localhost", |run| {
            after_disconnect(run, "10.2.0.9:80", "127.0.0.1:80")
        }),
        Scenario::new("after AF_UNSPEC, from localhost to a captured one", |run| {
            after_disconnect(run, "127.0.0.1:80", "10.2.0.9:80")
        }),
        Scenario::new("after AF_UNSPEC, IPv6", |run| {
            after_disconnect(run, "[fd00:2::9]:80", "[fd00:9::1]:80")
        }),
        Scenario::new("after AF_UNSPEC, IPv6 and then IPv4", |run| {
            after_disconnect(run, "[fd00:2::9]:80", "[::ffff:10.9.0.1]:80")
        }),
        Scenario::new("while connected", |run| {
            let socket = run.dial(Role::App, "10.2.0.9:80")?.context("no response")?;
            run.label("again");
            Dial::new(Role::App, "10.9.0.1:80").execute_on(run, socket)?;
            run.expect_outcome("EISCONN");
            Ok(())
        }),
        Scenario::new("while listening", |run| {
            let app = run.actor(Role::App)?;
            let socket = app.listen(address("0.0.0.0:20030"))?;
            Dial::new(Role::App, "10.9.0.1:80").execute_on(run, socket)?;
            run.expect_outcome("EISCONN");
            Ok(())
        }),
    ];
    differential(&Setup::default(), &scenarios);
}

fn after_refusal(run: &mut Run<'_>, first: &str, second: &str) -> Result<()> {
    run.world().stop_proxy()?;
    let app = run.actor(Role::App)?;
    let socket = app.socket(Family::of(address(first)), Protocol::Tcp)?;
    Dial::new(Role::App, first).execute_on(run, socket)?;
    run.expect_outcome("ECONNREFUSED");
    run.world().start_proxy()?;
    run.label("again");
    Dial::new(Role::App, second).execute_on(run, socket)?;
    run.expect("the second dial succeeds", run.outcome().contains(':'));
    Ok(())
}

fn after_disconnect(run: &mut Run<'_>, first: &str, second: &str) -> Result<()> {
    let app = run.actor(Role::App)?;
    let socket = run.dial(Role::App, first)?.context("no response")?;
    run.label("disconnected");
    run.perform("connect to AF_UNSPEC", app, &Request::Disconnect { socket })?;
    run.record_names(app, socket)?;
    run.label("again");
    Dial::new(Role::App, second).execute_on(run, socket)?;
    run.expect("the second dial succeeds", run.outcome().contains(':'));
    Ok(())
}

/// Only TCP is redirected.
#[test]
fn udp() {
    let scenarios = [
        "10.2.0.9:80",
        "10.1.0.2:80",
        "127.0.0.1:80",
        "[fd00:2::9]:80",
    ]
    .map(|to| {
        Scenario::new(format!("an app connects UDP to {to}"), move |run| {
            let app = run.actor(Role::App)?;
            let address = address(to);
            let socket = app.socket(Family::of(address), Protocol::Udp)?;
            run.perform("connect", app, &Request::Connect { socket, address })?;
            run.record_names(app, socket)
        })
    });
    differential(&Setup::default(), &scenarios);
}
