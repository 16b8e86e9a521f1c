//! DNS queries of sockets that are bound, reused, or query several servers.

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request, SocketOption},
    scenario::{Query, Run, Scenario, Sending, differential, receive},
    world::Role,
};

use super::{AGENT, all, servers, setup};

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
    Disconnect,
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
            Step::Disconnect => {
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
    use Step::{Connected, Disconnect, Unconnected};

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
            "to a server with another source address",
            &[Connected(SERVER), Disconnect, Connected(OTHER_ROUTE)],
        ),
        ("to the same", &[Connected(SERVER), Connected(SERVER)]),
        (
            "disconnected",
            &[Connected(SERVER), Disconnect, Connected(OTHER)],
        ),
        (
            "disconnected, to a local one",
            &[Connected(SERVER), Disconnect, Connected(LOCAL)],
        ),
        (
            "disconnected, to no server",
            &[Connected(SERVER), Disconnect, Connected(NO_SERVER)],
        ),
        (
            "disconnected, to no server of the pod",
            &[Connected(SERVER), Disconnect, Connected(NO_SERVER_LOCAL)],
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
                Disconnect,
                Connected(MAPPED_LOCAL),
                Disconnect,
                Connected(SERVER_V6),
            ],
        ),
        (
            "IPv6",
            &[Connected(SERVER_V6), Disconnect, Connected(LOCAL_V6)],
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
