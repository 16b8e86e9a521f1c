//! DNS queries that name their outgoing interface or their source address, and sockets that share a
//! port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request, SocketOption},
    scenario::{Query, Run, Scenario, Sending, address, differential},
    settings::{Dns, Settings},
    world::{Layout, Role, Setup},
};

const AGENT: &str = "agent:15053";
const SILENCE: &str = "silence";
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn setup(settings: &Settings) -> Setup {
    Setup {
        dns: true,
        ..Setup::with(Settings {
            dns: Dns::All,
            ..settings.clone()
        })
    }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => ANY_V4,
        Family::V6 => ANY_V6,
    }
}

fn unicast(family: Family, interface: &str) -> SocketOption {
    match family {
        Family::V4 => SocketOption::UnicastInterface(interface.to_owned()),
        Family::V6 => SocketOption::UnicastInterfaceV6(interface.to_owned()),
    }
}

/// A query that names an interface.
struct Row {
    interface: &'static str,
    to: &'static str,
    outcome: &'static str,
    /// The outcome where a socket connects before one of its datagrams names the interface.
    after_connect: &'static str,
}

const fn row(interface: &'static str, to: &'static str, outcome: &'static str) -> Row {
    Row {
        interface,
        to,
        outcome,
        after_connect: outcome,
    }
}

impl Row {
    const fn after_connect(mut self, outcome: &'static str) -> Self {
        self.after_connect = outcome;
        self
    }

    /// Every way to name the interface, over connected and unconnected sockets.
    fn scenarios(&self) -> Vec<Scenario> {
        let all = Sending::BOTH.map(|sending| self.scenarios_of(sending));
        all.into_iter().flatten().collect()
    }

    fn scenarios_of(&self, sending: Sending) -> Vec<Scenario> {
        let Self { interface, to, .. } = *self;
        let family = Family::of(address(to));
        let query = || Query::new(Role::App, to, sending);
        let with_info = query().with_info(Some(interface), any(family));
        let outcome_with_info = match sending {
            Sending::Connected => self.after_connect,
            Sending::Unconnected => self.outcome,
        };
        let option = unicast(family, interface);
        let mut queries = vec![
            ("UNICAST_IF", self.outcome, query().with(option)),
            ("PKTINFO", outcome_with_info, with_info),
        ];
        if family == Family::V6 {
            let option = SocketOption::PacketInfoV6(interface.to_owned());
            queries.push(("PKTINFO of the socket", self.outcome, query().with(option)));
        }
        let scenario = |(name, outcome, query)| {
            let name: &str = name;
            Scenario::query(&format!("{name} {interface}"), outcome, query)
        };
        queries.into_iter().map(scenario).collect()
    }
}

fn compare(setup: &Setup, rows: &[Row]) {
    let scenarios: Vec<_> = rows.iter().flat_map(Row::scenarios).collect();
    differential(setup, &scenarios);
}

#[test]
fn queries_that_name_an_interface() {
    let rows = [
        row("eth0", "10.96.0.10:53", AGENT),
        row("eth0", "10.2.0.9:53", AGENT),
        row("eth0", "10.1.0.2:53", AGENT),
        // Routes with a source address of their own.
        row("eth0", "10.9.0.1:53", AGENT),
        row("eth0", "10.8.0.1:53", AGENT),
        row("eth0", "[fd00:96::10]:53", AGENT),
        row("eth0", "[fd00:9::1]:53", AGENT),
        row("eth0", "[fd00:8::1]:53", AGENT),
        row("eth1", "10.4.0.1:53", AGENT),
        row("eth1", "[fd00:4::1]:53", AGENT),
        row("lo", "127.0.0.53:53", AGENT),
        row("lo", "[::1]:53", AGENT),
        // The interface is not the route's. A datagram's source then differs from the address that
        // the socket was bound to when it connected, so the response does not reach it.
        row("eth0", "127.0.0.53:53", AGENT).after_connect(SILENCE),
        row("eth1", "10.96.0.10:53", AGENT).after_connect(SILENCE),
        row("eth0", "10.4.0.1:53", AGENT).after_connect(SILENCE),
        row("eth0", "[fd00:4::1]:53", AGENT),
    ];
    compare(&setup(&Settings::default()), &rows);
}

/// A route's error applies to queries without an interface.
#[test]
fn servers_reachable_only_through_a_named_interface() {
    let rows = [
        row("eth0", "10.66.1.1:53", AGENT).after_connect("EHOSTUNREACH"),
        row("eth1", "198.51.100.9:53", AGENT).after_connect("ENETUNREACH"),
    ];
    let setup = Setup {
        layout: Layout {
            default_route: false,
            ..Layout::default()
        },
        ..setup(&Settings::default())
    };
    compare(&setup, &rows);
}

/// `-c` excludes by the outgoing interface of the query.
#[test]
fn an_excluded_interface() {
    let settings = Settings {
        excluded_interfaces: "eth1",
        ..Settings::default()
    };
    let rows = [
        row("eth1", "10.4.0.1:53", "remote:53"),
        row("eth0", "10.4.0.1:53", AGENT).after_connect(SILENCE),
        row("eth0", "10.96.0.10:53", AGENT),
    ];
    compare(&setup(&settings), &rows);
}

/// The agent gets the source address that the datagram names, whatever the socket is bound to.
#[test]
fn queries_that_name_their_source() {
    const SERVER: &str = "10.96.0.10:53";
    const SERVER_V6: &str = "[fd00:96::10]:53";

    let rows = [
        ("10.1.0.3", None, SERVER, None, AGENT),
        ("10.3.0.2", None, SERVER, None, AGENT),
        ("10.1.0.3", Some("eth0"), SERVER, None, AGENT),
        ("10.1.0.2", Some("eth0"), SERVER, None, AGENT),
        ("10.1.0.3", None, SERVER, Some("0.0.0.0:4053"), AGENT),
        // The response is not sent to the socket's address.
        ("10.1.0.3", None, SERVER, Some("10.1.0.2:4053"), SILENCE),
        (
            "0.0.0.0",
            Some("eth0"),
            SERVER,
            Some("10.1.0.2:4053"),
            AGENT,
        ),
        ("fd00:1::3", None, SERVER_V6, None, AGENT),
        ("fd00:1::2", Some("eth0"), SERVER_V6, None, AGENT),
        ("fd00:1::2", None, SERVER_V6, Some("[::]:4053"), AGENT),
        (
            "::ffff:10.1.0.3",
            None,
            "[::ffff:10.96.0.10]:53",
            None,
            AGENT,
        ),
    ];
    let scenarios = rows.map(|(source, interface, to, bound, outcome)| {
        let info: IpAddr = source.parse().expect("an address");
        let mut query = Query::new(Role::App, to, Sending::Unconnected).with_info(interface, info);
        if let Some(bound) = bound {
            query = query.from(bound);
        }
        let name = format!("from {source}, {interface:?}, bound to {bound:?}");
        Scenario::query(&name, outcome, query)
    });
    differential(&setup(&Settings::default()), &scenarios);
}

/// The copied routes are stale, and the pod has lost the address that they name.
#[test]
fn a_source_address_that_the_pod_has_lost() {
    let lose = "addr del 10.3.0.2/24 dev eth1\naddr del fd00:3::2/64 dev eth1";
    let query = |to: &str| {
        let query = Query::new(Role::App, to, Sending::Unconnected).without_peer();
        Scenario::query("after that", AGENT, query)
    };
    let scenarios = [
        Scenario::new(lose, move |run| run.world().pod().ip(lose)),
        query("10.8.0.1:53"),
        query("10.96.0.10:53"),
        query("[fd00:8::1]:53"),
        query("[fd00:96::10]:53"),
    ];
    differential(&setup(&Settings::default()), &scenarios);
}

/// Two sockets share a port. Which of them gets the response is the kernel's choice, by a hash of
/// the addresses: for at least one of several ports it is the socket that did not query.
#[test]
fn a_socket_that_gets_the_response_of_another_one() {
    let scenarios = ["10.96.0.10:53", "[fd00:96::10]:53", "127.0.0.53:53"].map(|server| {
        Scenario::new(format!("{server}, from shared ports"), move |run| {
            (4060..4070).try_for_each(|port| share_port(run, server, port))
        })
    });
    differential(&setup(&Settings::default()), &scenarios);
}

fn share_port(run: &mut Run<'_>, server: &str, port: u16) -> Result<()> {
    let actor = run.actor(Role::App)?;
    let to = address(server);
    let family = Family::of(to);
    let mut twins = Vec::new();
    for _ in 0..2 {
        let socket = actor.socket(family, Protocol::Udp)?;
        let option = SocketOption::ReusePort;
        actor.must(&Request::Set { socket, option })?;
        let address = (any(family), port).into();
        actor.must(&Request::Bind { socket, address })?;
        twins.push(socket);
    }
    let query = Query::new(Role::App, server, Sending::Unconnected);
    ensure!(query.send(run, actor, twins[0])?, "cannot send");
    for socket in twins {
        let peek = false;
        if let Reply::Datagrams(responses) = actor.call(&Request::ReceiveFrom { socket, peek })? {
            run.record_sender(&responses[0])?;
            run.expect(
                "the response comes from the server",
                responses[0].sender == to,
            );
        }
        actor.must(&Request::Close { socket })?;
    }
    run.expect_outcome(AGENT);
    Ok(())
}
