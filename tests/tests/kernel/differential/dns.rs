//! DNS queries, which are redirected to the proxy's DNS agent.

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request, SocketOption},
    scenario::{Dial, Query, Run, Scenario, Sending, differential, receive},
    settings::{Dns, Mode, Settings},
    world::{Layout, Role, Setup},
};

type Rows = &'static [(Role, &'static str, &'static str)];

fn setup(settings: Settings) -> Setup {
    Setup {
        dns: true,
        ..Setup::with(settings)
    }
}

fn all() -> Settings {
    Settings {
        dns: Dns::All,
        ..Settings::default()
    }
}

fn servers(servers: &'static str) -> Settings {
    Settings {
        dns: Dns::Servers(servers),
        ..Settings::default()
    }
}

/// Queries over UDP in both modes.
fn query(rows: Rows) -> Vec<Scenario> {
    rows.iter()
        .flat_map(|(role, to, outcome)| {
            Sending::BOTH.map(|sending| {
                let query = Query::new(*role, to, sending);
                Scenario::query(&format!("{role:?}"), outcome, query)
            })
        })
        .collect()
}

fn dial(rows: Rows) -> Vec<Scenario> {
    rows.iter()
        .map(|(role, to, outcome)| {
            Scenario::dial(&format!("{role:?}"), outcome, Dial::new(*role, to))
        })
        .collect()
}

const AGENT: &str = "agent:15053";

#[test]
fn every_query_over_udp() {
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.2.0.9:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        // Routing selects another source address than usual.
        (Role::App, "10.8.0.1:53", AGENT),
        (Role::App, "10.9.0.1:53", AGENT),
        (Role::App, "10.4.0.1:53", AGENT),
        // No host has the address.
        (Role::App, "198.51.100.53:53", AGENT),
        // The pod itself.
        (Role::App, "127.0.0.1:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "[::ffff:127.0.0.53]:53", AGENT),
        (Role::App, "10.1.0.2:53", AGENT),
        (Role::App, "10.3.0.2:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
        (Role::App, "[fd00:1::2]:53", AGENT),
        (Role::App, "0.0.0.0:53", AGENT),
        (Role::App, "[::]:53", AGENT),
        (Role::Root, "10.96.0.10:53", AGENT),
        (Role::Root, "[fd00:96::10]:53", AGENT),
        // The proxy and the agent.
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::ProxyUid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "[fd00:96::10]:53", "remote:53"),
        (Role::ProxyGid, "[fd00:96::10]:53", "remote:53"),
        (Role::Proxy, "127.0.0.1:53", "app:53"),
        (Role::Proxy, "127.0.0.53:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.1.0.2:53", "app:53"),
        (Role::Proxy, "[::1]:53", "app:53"),
        // Other ports.
        (Role::App, "10.2.0.9:5353", "remote:5353"),
        (Role::App, "127.0.0.1:5353", "app:5353"),
        (Role::App, "127.0.0.1:15053", AGENT),
        (Role::App, "[::1]:15053", AGENT),
        // No UDP from outside is captured.
        (Role::Client, "10.1.0.2:53", "app:53"),
        (Role::Client, "[fd00:1::2]:53", "app:53"),
    ]);
    differential(&setup(all()), &scenarios);
}

#[test]
fn every_query_over_tcp() {
    let scenarios = dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        (Role::App, "10.8.0.1:53", AGENT),
        (Role::App, "10.4.0.1:53", AGENT),
        (Role::App, "127.0.0.1:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.1.0.2:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
        (Role::App, "[fd00:1::2]:53", AGENT),
        (Role::App, "0.0.0.0:53", AGENT),
        (Role::Root, "10.96.0.10:53", AGENT),
        (Role::App, "10.66.1.1:53", "EHOSTUNREACH"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::ProxyUid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "127.0.0.1:53", "app:53"),
        (Role::Proxy, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.1.0.2:53", "app:53"),
        (Role::Proxy, "[fd00:1::2]:53", "app:53"),
        // Only the rules of UIDs pass port 53.
        (Role::ProxyGid, "127.0.0.53:53", "proxy:15006"),
        (Role::ProxyGid, "10.1.0.2:53", "proxy:15006"),
        (Role::ProxyGid, "[fd00:1::2]:53", "proxy:15006"),
        (Role::ProxyGid, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "[::1]:53", "app:53"),
        (Role::ProxyUid, "127.0.0.53:53", "app:53"),
        // Everything else is as without DNS.
        (Role::App, "10.2.0.9:80", "proxy:15001"),
        (Role::App, "10.1.0.2:80", "app:80"),
        (Role::Client, "10.1.0.2:53", "proxy:15006"),
    ]);
    differential(&setup(all()), &scenarios);
}

/// An app's queries to other servers than resolv.conf's pass as before: UDP directly, TCP through
/// the proxy.
#[test]
fn only_the_servers_of_resolv_conf() {
    let settings = servers("10.96.0.10,fd00:96::10,127.0.0.53");
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.2.0.9:53", "remote:53"),
        (Role::App, "[fd00:2::9]:53", "remote:53"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::App, "10.1.0.2:53", "app:53"),
        (Role::App, "[::1]:53", "app:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "10.2.0.9:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.2.0.9:53", "proxy:15001"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "proxy:15006"),
    ]));
    differential(&setup(settings), &scenarios);
}

#[test]
fn servers_of_one_family() {
    for (named, v4, v6) in [
        ("10.96.0.10", AGENT, "remote:53"),
        ("fd00:96::10", "remote:53", AGENT),
    ] {
        let rows = [
            (Role::App, "10.96.0.10:53", v4),
            (Role::App, "[::ffff:10.96.0.10]:53", v4),
            (Role::App, "[fd00:96::10]:53", v6),
            (Role::Proxy, "10.96.0.10:53", "remote:53"),
            (Role::Proxy, "[fd00:96::10]:53", "remote:53"),
        ];
        let scenarios = query(Box::leak(Box::new(rows)));
        differential(&setup(servers(named)), &scenarios);
    }
}

/// As behind rules without DNS, whatever listens on the agent's port.
#[test]
fn no_dns_capture() {
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "[::ffff:10.96.0.10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::App, "127.0.0.1:15053", AGENT),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", "proxy:15001"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]));
    differential(&setup(Settings::default()), &scenarios);
}

/// A bound socket keeps its source address and port.
#[test]
fn bound_sockets() {
    let rows = [
        ("10.1.0.3:0", "10.96.0.10:53", AGENT),
        ("10.3.0.2:0", "10.96.0.10:53", AGENT),
        ("10.1.0.2:4053", "10.96.0.10:53", AGENT),
        ("[fd00:1::3]:0", "[fd00:96::10]:53", AGENT),
        ("[::ffff:10.1.0.3]:0", "[::ffff:10.96.0.10]:53", AGENT),
        ("127.0.0.1:0", "127.0.0.53:53", AGENT),
        ("127.0.0.2:0", "127.0.0.1:53", AGENT),
        ("10.1.0.2:0", "127.0.0.53:53", AGENT),
        ("10.1.0.2:0", "0.0.0.0:53", AGENT),
        // The proxy's connection to the app.
        ("127.0.0.6:0", "127.0.0.53:53", "app:53"),
        ("127.0.0.6:0", "10.1.0.2:53", "app:53"),
        ("127.0.0.1:0", "10.96.0.10:53", "EINVAL"),
    ];
    let mut scenarios: Vec<_> = rows
        .iter()
        .flat_map(|(from, to, outcome)| {
            Sending::BOTH.map(|sending| {
                let query = Query::new(Role::App, to, sending).from(from);
                Scenario::query(&format!("from {from}"), outcome, query)
            })
        })
        .collect();
    // A port, but no address: the agent's view of it when it connects is a known difference.
    for (from, to) in [
        ("0.0.0.0:4053", "10.96.0.10:53"),
        ("0.0.0.0:4053", "127.0.0.53:53"),
        ("[::]:4053", "[fd00:96::10]:53"),
        ("[::]:4053", "[::ffff:10.96.0.10]:53"),
    ] {
        for sending in Sending::BOTH {
            let query = Query::new(Role::App, to, sending).from(from);
            let query = match sending {
                Sending::Connected => query.without_peer(),
                Sending::Unconnected => query,
            };
            scenarios.push(Scenario::query(&format!("from {from}"), AGENT, query));
        }
    }
    differential(&setup(all()), &scenarios);
}

/// A query through another interface is a known difference.
#[test]
fn sockets_bound_to_the_loopback_interface() {
    let scenarios = Sending::BOTH.map(|sending| {
        let option = SocketOption::BindToDevice("lo".to_owned());
        let query = Query::new(Role::Root, "127.0.0.53:53", sending).with(option);
        Scenario::query("lo", AGENT, query)
    });
    differential(&setup(all()), &scenarios);
}

/// One socket that queries several servers before it reads, as musl's resolver does, and each of
/// them twice.
fn query_several(
    run: &mut Run<'_>,
    from: Option<&str>,
    servers: &[&str],
    many: bool,
) -> Result<()> {
    let actor = run.actor(Role::App)?;
    let query = |to: &str| Query::new(Role::App, to, Sending::Unconnected);
    let family = if servers.iter().any(|server| server.starts_with('[')) {
        Family::V6
    } else {
        Family::V4
    };
    let first = query(servers[0]).on(family);
    let first = match from {
        Some(from) => first.from(from),
        None => first,
    };
    let Some(socket) = first.open(run, actor)? else {
        return Ok(());
    };
    let mut responses = Vec::new();
    for _ in 0..2 {
        for server in servers {
            query(server).send(run, actor, socket)?;
        }
        let requests = if many {
            vec![Request::ReceiveMany {
                socket,
                count: servers.len(),
            }]
        } else {
            vec![
                Request::ReceiveFrom {
                    socket,
                    peek: false
                };
                servers.len()
            ]
        };
        for request in requests {
            match actor.must(&request)? {
                Reply::Datagrams(datagrams) => responses.extend(datagrams),
                reply => run.record("unexpected", format!("{reply:?}")),
            }
        }
    }
    // The order of the responses is random. The address that the agent gets is not compared: see
    // the docs.
    responses.sort_by_key(|response| response.sender);
    for response in responses {
        run.record_sender(&response)?;
        run.expect_outcome(AGENT);
        let is_queried = servers.contains(&response.sender.to_string().as_str());
        run.expect("the response comes from a queried server", is_queried);
    }
    Ok(())
}

#[test]
fn one_socket_that_queries_several_servers() {
    const SEVERAL: [&[&str]; 5] = [
        &["10.96.0.10:53", "10.2.0.9:53", "198.51.100.53:53"],
        &["127.0.0.53:53", "10.96.0.10:53", "10.1.0.2:53"],
        &["[fd00:96::10]:53", "[fd00:2::9]:53", "[::1]:53"],
        &[
            "[fd00:96::10]:53",
            "[::ffff:10.96.0.10]:53",
            "[::ffff:10.2.0.9]:53",
        ],
        &["[::ffff:10.2.0.9]:53", "[::ffff:127.0.0.1]:53"],
    ];
    let mut scenarios = Vec::new();
    for servers in SEVERAL {
        for many in [false, true] {
            let name = format!("{servers:?}, many: {many}");
            scenarios.push(Scenario::new(name, move |run| {
                query_several(run, None, servers, many)
            }));
        }
        let is_v4 = !servers[0].starts_with('[');
        let from = if is_v4 { "0.0.0.0:4053" } else { "[::]:4053" };
        let name = format!("{servers:?} from {from}");
        scenarios.push(Scenario::new(name, move |run| {
            query_several(run, Some(from), servers, false)
        }));
    }
    differential(&setup(all()), &scenarios);
}

/// Some servers are captured, others are not.
#[test]
fn one_socket_with_captured_and_other_servers() {
    let several: &[&str] = &["10.96.0.10:53", "10.2.0.9:53", "127.0.0.1:53"];
    let scenario = Scenario::new("one of them is captured", move |run| {
        let actor = run.actor(Role::App)?;
        let query = |to: &str| Query::new(Role::App, to, Sending::Unconnected);
        let Some(socket) = query(several[0]).open(run, actor)? else {
            return Ok(());
        };
        for (server, outcome) in several.iter().zip([AGENT, "remote:53", "app:53"]) {
            query(server).execute_on(run, actor, socket)?;
            run.expect_outcome(outcome);
        }
        Ok(())
    });
    differential(&setup(servers("10.96.0.10")), &[scenario]);
}

/// One step of a socket: `connect`, `send`, `sendto`, or disconnecting.
#[derive(Clone, Copy)]
enum Step {
    Connected(&'static str),
    Unconnected(&'static str),
    Dissolve,
}

fn execute_steps(run: &mut Run<'_>, steps: &[Step]) -> Result<()> {
    let actor = run.actor(Role::App)?;
    let family = if steps.iter().any(|step| step.is_v6()) {
        Family::V6
    } else {
        Family::V4
    };
    let socket = actor.socket(family, Protocol::Udp)?;
    for (number, step) in steps.iter().enumerate() {
        run.label(format!("step {number}"));
        let (to, sending) = match step {
            Step::Connected(to) => (to, Sending::Connected),
            Step::Unconnected(to) => (to, Sending::Unconnected),
            Step::Dissolve => {
                run.perform("disconnect", actor, &Request::Disconnect { socket })?;
                continue;
            }
        };
        Query::new(Role::App, to, sending)
            .without_peer()
            .execute_on(run, actor, socket)?;
    }
    Ok(())
}

impl Step {
    fn is_v6(self) -> bool {
        matches!(self, Self::Connected(to) | Self::Unconnected(to) if to.starts_with('['))
    }
}

/// Sockets that are reused, for another server or for something else.
#[test]
fn sockets_that_are_reused() {
    use Step::{Connected, Dissolve, Unconnected};

    const SERVER: &str = "10.96.0.10:53";
    const OTHER: &str = "10.2.0.9:53";
    const OTHER_ROUTE: &str = "10.4.0.1:53";
    const MAPPED: &str = "[::ffff:10.96.0.10]:53";
    const MAPPED_LOCAL: &str = "[::ffff:127.0.0.53]:53";
    const LOCAL: &str = "127.0.0.53:53";
    const NO_SERVER: &str = "10.2.0.9:5353";
    const NO_SERVER_LOCAL: &str = "127.0.0.1:5353";
    const SERVER_V6: &str = "[fd00:96::10]:53";
    const LOCAL_V6: &str = "[::1]:53";
    let rows: [(&str, &[Step]); 14] = [
        ("to another server", &[Connected(SERVER), Connected(OTHER)]),
        (
            "to a server that routing has another source for",
            &[Connected(SERVER), Dissolve, Connected(OTHER_ROUTE)],
        ),
        ("to the same", &[Connected(SERVER), Connected(SERVER)]),
        (
            "dissolved",
            &[Connected(SERVER), Dissolve, Connected(OTHER)],
        ),
        (
            "dissolved, to a local one",
            &[Connected(SERVER), Dissolve, Connected(LOCAL)],
        ),
        (
            "dissolved, to no server",
            &[Connected(SERVER), Dissolve, Connected(NO_SERVER)],
        ),
        (
            "dissolved, to no server of the pod",
            &[Connected(SERVER), Dissolve, Connected(NO_SERVER_LOCAL)],
        ),
        (
            "from one that is no server",
            &[Connected(NO_SERVER), Connected(SERVER)],
        ),
        (
            "unconnected, then to no server",
            &[
                Unconnected(SERVER),
                Unconnected(NO_SERVER),
                Unconnected(SERVER),
            ],
        ),
        (
            "unconnected, then connected",
            &[
                Unconnected(SERVER),
                Connected(OTHER),
                Unconnected(OTHER),
                Connected(SERVER),
                Connected(LOCAL),
            ],
        ),
        (
            "IPv4, then IPv6",
            &[
                Connected(MAPPED),
                Dissolve,
                Connected(MAPPED_LOCAL),
                Dissolve,
                Connected(SERVER_V6),
            ],
        ),
        (
            "IPv6",
            &[Connected(SERVER_V6), Dissolve, Connected(LOCAL_V6)],
        ),
        (
            "connected, and one more to another server",
            &[Connected(SERVER), Unconnected(OTHER)],
        ),
        (
            "connected, and one more that is sent to the same",
            &[Connected(SERVER), Unconnected(SERVER)],
        ),
    ];
    let scenarios =
        rows.map(|(name, steps)| Scenario::new(name, move |run| execute_steps(run, steps)));
    differential(&setup(all()), &scenarios);
}

/// A response can be peeked at before it is read.
#[test]
fn a_peek_at_the_response() {
    let scenarios = ["10.96.0.10:53", "[fd00:96::10]:53", "127.0.0.1:53"].map(|to| {
        Scenario::new(format!("peek ({to})"), move |run| {
            let actor = run.actor(Role::App)?;
            let query = Query::new(Role::App, to, Sending::Unconnected);
            let Some(socket) = query.open(run, actor)? else {
                return Ok(());
            };
            query.send(run, actor, socket)?;
            for peek in [true, true, false] {
                for datagram in receive(run, actor, socket, peek)? {
                    run.record_sender(&datagram)?;
                }
                run.expect_outcome(AGENT);
            }
            Ok(())
        })
    });
    differential(&setup(all()), &scenarios);
}

/// Where the agent does not listen, no other server responds instead. (The error of a connected
/// socket is a known difference.)
#[test]
fn no_agent() {
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", "ECONNREFUSED"),
        (Role::App, "[fd00:96::10]:53", "ECONNREFUSED"),
        (Role::App, "[::ffff:10.96.0.10]:53", "ECONNREFUSED"),
        (Role::App, "127.0.0.1:53", "ECONNREFUSED"),
        (Role::App, "10.1.0.2:53", "ECONNREFUSED"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ];
    let over_tcp = rows.iter().map(|(role, to, outcome)| {
        let dial = Dial::new(*role, to);
        Scenario::new(format!("{role:?} dials {to}"), move |run| {
            run.world().stop_proxy()?;
            dial.execute(run)?;
            run.expect_outcome(outcome);
            Ok(())
        })
    });
    let unconnected = ["10.96.0.10:53", "[fd00:96::10]:53"].map(|to| {
        let query = Query::new(Role::App, to, Sending::Unconnected);
        Scenario::new(format!("unconnected to {to}"), move |run| {
            run.world().stop_proxy()?;
            query.execute(run)?;
            run.expect_outcome("silence");
            Ok(())
        })
    });
    let scenarios: Vec<_> = over_tcp.chain(unconnected).collect();
    differential(&setup(all()), &scenarios);
}

/// Reserved addresses, a link-local one without its link, port 0.
#[test]
fn odd_servers() {
    let rows = [
        "240.0.0.1:53",
        "0.1.2.3:53",
        "[::10.2.0.9]:53",
        "[fe80::1]:53",
        "10.96.0.10:0",
    ];
    let scenarios: Vec<_> = rows
        .iter()
        .flat_map(|to| {
            Sending::BOTH.map(|sending| {
                let query = Query::new(Role::App, to, sending);
                Scenario::new(format!("{to}, {sending:?}"), move |run| {
                    query.execute(run).map(drop)
                })
            })
        })
        .collect();
    differential(&setup(all()), &scenarios);
}

/// The proxy is root there, and identified by its GID.
#[test]
fn with_tproxy() {
    let settings = Settings {
        mode: Mode::Tproxy,
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
    ]));
    differential(&setup(settings), &scenarios);
}

#[test]
fn unreachable_servers() {
    let rows: Rows = &[
        (Role::App, "10.66.1.1:53", "EHOSTUNREACH"),
        (Role::App, "10.66.2.1:53", "EACCES"),
        (Role::App, "10.66.3.1:53", "EINVAL"),
        (Role::App, "10.66.4.1:53", "ENETUNREACH"),
        (Role::App, "[::ffff:10.66.1.1]:53", "EHOSTUNREACH"),
        (Role::App, "[fd00:66:1::1]:53", "EHOSTUNREACH"),
        (Role::App, "[fd00:66:2::1]:53", "EACCES"),
        (Role::App, "[fd00:66:3::1]:53", "EINVAL"),
        (Role::App, "198.51.100.9:53", "ENETUNREACH"),
        (Role::App, "[2001:db8::9]:53", "ENETUNREACH"),
        (Role::App, "10.96.0.10:53", AGENT),
    ];
    let setup = Setup {
        layout: Layout {
            default_route: false,
            ..Layout::default()
        },
        ..setup(all())
    };
    differential(&setup, &query(rows));
}

#[test]
fn a_pod_of_one_family() {
    let without = |v4, v6| Setup {
        layout: Layout {
            v4,
            v6,
            ..Layout::default()
        },
        ..setup(all())
    };
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", "ENETUNREACH"),
    ];
    differential(&without(true, false), &query(rows));
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", "ENETUNREACH"),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
    ];
    differential(&without(false, true), &query(rows));
}

/// Excluded ports, prefixes, interfaces and owner groups.
#[test]
fn dns_excluded_by_other_settings() {
    let port = Settings {
        outbound_excluded_ports: "53",
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]));
    differential(&setup(port), &scenarios);

    // DNS precedes prefixes.
    let prefix = Settings {
        outbound_excluded_cidrs: "10.96.0.0/16,fd00:96::/32",
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.96.0.10:80", "remote:80"),
    ]));
    differential(&setup(prefix), &scenarios);

    let interface = Settings {
        excluded_interfaces: "eth1",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.4.0.1:53", "remote:53"),
        (Role::App, "10.3.0.2:53", AGENT),
    ]);
    differential(&setup(interface), &scenarios);
}

#[test]
fn owner_groups() {
    let excluded = Settings {
        excluded_owner_groups: "1000",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::Root, "10.96.0.10:53", AGENT),
    ]);
    differential(&setup(excluded), &scenarios);

    let included = Settings {
        owner_groups: "1000",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::Root, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    differential(&setup(included), &scenarios);
}
