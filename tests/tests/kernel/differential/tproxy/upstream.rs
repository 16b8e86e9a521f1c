//! Connections of the proxy to the app, from its client's address.

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request, SocketOption},
    scenario::{ConnectMode, Dial, Scenario, address, differential},
    settings::Settings,
    world::{Bind, Mechanism, Role, Setup, World, serve},
};

use super::{
    proxy::{
        MARK, bound, connect_to_app, connect_to_proxy, listen, listener_for, transparent,
        upstream_from,
    },
    settings, setup,
};

/// `from` is the client's address, `upstream` the same as the proxy's socket is bound to it.
fn through(from: &'static str, to: &'static str, upstream: &'static str) -> Scenario {
    Scenario::new(format!("{from} to {to} by {upstream}"), move |run| {
        let listeners = listen(run)?;
        let ends = connect_to_proxy(run, listeners, from, to)?;
        let far = address(upstream);
        let to = if far.is_ipv6() && address(to).is_ipv4() {
            format!("[::ffff:{}]:{}", address(to).ip(), address(to).port())
        } else {
            to.to_owned()
        };
        connect_to_app(run, ends, far, &to)
    })
}

#[test]
fn the_app_gets_the_clients_address() {
    let scenarios = [
        through("10.1.0.1:0", "10.1.0.2:8080", "10.1.0.1:0"),
        through("10.1.0.1:25000", "10.1.0.2:8080", "10.1.0.1:25001"),
        through("10.2.0.9:0", "10.1.0.2:8080", "10.2.0.9:0"),
        through("10.1.0.1:0", "10.1.0.3:8080", "10.1.0.1:0"),
        through("10.3.0.1:0", "10.3.0.2:8080", "10.3.0.1:0"),
        through("[fd00:1::1]:0", "[fd00:1::2]:8080", "[fd00:1::1]:0"),
        through("[fd00:1::1]:25000", "[fd00:1::2]:8080", "[fd00:1::1]:25001"),
        through("[fd00:2::9]:0", "[fd00:1::3]:8080", "[fd00:2::9]:0"),
        through("[fd00:2::9]:0", "[fd00:3::2]:8080", "[fd00:2::9]:0"),
        through("10.1.0.1:0", "10.1.0.2:8080", "[::ffff:10.1.0.1]:0"),
    ];
    differential(&setup(), &scenarios);
}

#[test]
fn with_another_mark_and_another_table() {
    let settings = Settings {
        tproxy_mark: 77,
        tproxy_table: 300,
        ..settings()
    };
    let scenarios = [
        through("10.1.0.1:0", "10.1.0.2:8080", "10.1.0.1:0"),
        through("[fd00:1::1]:0", "[fd00:1::2]:8080", "[fd00:1::1]:0"),
        Scenario::dial(
            "captured",
            "proxy:15006",
            Dial::new(Role::Client, "10.1.0.2:8080"),
        ),
    ];
    differential(&Setup::with(settings), &scenarios);
}

/// Each gets its own responses.
#[test]
fn several_clients_at_once() {
    let clients = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("10.2.0.9:0", "10.1.0.2:8080"),
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ("[fd00:2::9]:0", "[fd00:1::2]:8080"),
    ];
    let scenario = Scenario::new("several clients", move |run| {
        let listeners = listen(run)?;
        let mut open = Vec::new();
        for (from, to) in clients {
            open.push(connect_to_proxy(run, listeners, from, to)?);
        }
        for (ends, (from, to)) in open.into_iter().zip(clients).rev() {
            connect_to_app(run, ends, address(from), to)?;
        }
        Ok(())
    });
    differential(&setup(), &[scenario]);
}

#[test]
fn in_every_mode_of_connecting() {
    let mut scenarios = Vec::new();
    for (from, to) in [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ("[::ffff:10.1.0.1]:0", "[::ffff:10.1.0.2]:8080"),
    ] {
        for mode in [
            ConnectMode::Blocking,
            ConnectMode::NonBlocking,
            ConnectMode::FastOpen,
            ConnectMode::FastOpenConnect,
        ] {
            let dial = upstream_from(from, to, MARK).mode(mode);
            scenarios.push(Scenario::dial(&format!("{mode:?}"), "app:8080", dial));
        }
        let no_port = SocketOption::BindAddressNoPort;
        let dial = upstream_from(from, to, MARK).with(no_port);
        scenarios.push(Scenario::dial("the port comes later", "app:8080", dial));
    }
    differential(&setup(), &scenarios);
}

/// The first packet has data.
#[test]
fn with_fast_open_always() {
    let setup = Setup {
        sysctls: &[("net.ipv4.tcp_fastopen", "1543")],
        ..setup()
    };
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        let dial = upstream_from(from, to, MARK).mode(ConnectMode::FastOpen);
        Scenario::dial("fast open", "app:8080", dial)
    });
    differential(&setup, &scenarios);
}

/// From the pod's own address, after the proxy has called its own pod.
#[test]
fn from_the_pods_own_address() {
    let scenarios = [
        ("10.1.0.2:0", "10.1.0.2:8080"),
        ("10.1.0.3:0", "10.1.0.2:8080"),
        ("[fd00:1::2]:0", "[fd00:1::2]:8080"),
        ("[fd00:1::3]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| Scenario::dial(from, "app:8080", upstream_from(from, to, MARK)));
    differential(&setup(), &scenarios);
}

#[test]
fn an_app_that_does_not_listen_refuses() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:81"),
        ("10.2.0.9:0", "10.1.0.2:81"),
        ("[fd00:1::1]:0", "[fd00:1::2]:81"),
        ("[::ffff:10.1.0.1]:0", "[::ffff:10.1.0.2]:81"),
    ]
    .map(|(from, to)| Scenario::dial(from, "ECONNREFUSED", upstream_from(from, to, MARK)));
    differential(&setup(), &scenarios);
}

/// An app that stops and starts listening.
#[test]
fn an_app_is_reached_when_it_listens_again() {
    let scenarios = [
        (81, "10.1.0.1:0", "10.1.0.2:81"),
        (82, "[fd00:1::1]:0", "[fd00:1::2]:82"),
    ]
    .map(|(port, from, to)| {
        Scenario::new(from, move |run| {
            let app = run.actor(Role::App)?;
            for turn in 0..3 {
                run.label(format!("turn {turn}, down:"));
                upstream_from(from, to, MARK).execute(run)?;
                run.expect_outcome("ECONNREFUSED");
                let socket = serve(app, Bind::DUAL_WILDCARD, port)?;
                run.label(format!("turn {turn}, up:"));
                upstream_from(from, to, MARK).execute(run)?;
                run.expect("the app responds", run.outcome().starts_with("app"));
                app.must(&Request::Close { socket })?;
            }
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

/// After the proxy's attempt from a client's address, the client's own connection is captured all
/// the same.
#[test]
fn a_client_is_captured_after_a_call_from_its_address() {
    let scenarios = [
        ("10.1.0.1:25010", "10.1.0.2:81"),
        ("[fd00:1::1]:25010", "[fd00:1::2]:81"),
    ]
    .map(|(from, to)| {
        Scenario::new(from, move |run| {
            run.label("proxy");
            upstream_from(from, to, MARK).execute(run)?;
            run.expect_outcome("ECONNREFUSED");
            run.label("client");
            Dial::new(Role::Client, to).from(from).execute(run)?;
            run.expect_outcome("proxy:15006");
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

#[test]
fn a_client_that_closes_before_the_accept() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        Scenario::new(from, move |run| {
            let listeners = listen(run)?;
            let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
            let options = vec![SocketOption::ResetOnClose];
            let socket = bound(client, address(from), options)?;
            let to_address = address(to);
            client.must(&Request::Connect {
                socket,
                address: to_address,
            })?;
            client.must(&Request::Close { socket })?;
            let accepted = proxy.accept(listener_for(to, listeners))?;
            run.label("accepted");
            let read = Request::ReceiveLine { socket: accepted };
            run.perform("read", proxy, &read)?;
            run.label("upstream all the same");
            upstream_from(from, to, MARK).execute(run)?;
            run.expect_outcome("app:8080");
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

/// A connection from a client's address without the mark is captured, as any other call of the pod
/// by its proxy is; the replies are sent to the client, which has no such connection.
#[test]
fn without_the_mark_it_hangs() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        let dial = upstream_from(from, to, 0);
        Scenario::dial(from, "silence", dial)
    });
    differential(&setup(), &scenarios);
}

fn world() -> World {
    World::new(Mechanism::Interceptor, &setup()).expect("a world")
}

/// While the app accepts nothing, the proxy's connection from a client's address stays in its
/// handshake. In the meantime, that client's own connection is captured.
#[test]
fn a_client_is_captured_while_the_app_does_not_accept() {
    let world = world();
    for (at, from, to) in [
        ("0.0.0.0:81", "10.1.0.1:25020", "10.1.0.2:81"),
        ("[::]:82", "[fd00:1::1]:25020", "[fd00:1::2]:82"),
    ] {
        dial_while_waiting(&world, at, from, to)
            .with_context(|| to.to_owned())
            .expect("captured");
    }
}

fn dial_while_waiting(world: &World, at: &str, from: &str, to: &str) -> Result<()> {
    let (app, proxy) = (world.actor(Role::App)?, world.actor(Role::RootProxyServer)?);
    let socket = app.socket(Family::of(address(at)), Protocol::Tcp)?;
    let address_to = address(to);
    app.must(&Request::Bind {
        socket,
        address: address(at),
    })?;
    app.must(&Request::ListenForOne { socket })?;
    // It fills the backlog.
    let local = address(&at.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"));
    let first = app.socket(Family::of(local), Protocol::Tcp)?;
    app.must(&Request::Connect {
        socket: first,
        address: local,
    })?;
    let options = transparent(Family::of(address_to), Some(MARK));
    let waiting = bound(proxy, address(from), options)?;
    let started = proxy.call(&Request::ConnectStart {
        socket: waiting,
        address: address_to,
    })?;
    ensure!(
        started == Reply::Error("EINPROGRESS".to_owned()),
        "{started:?}"
    );
    let client = world.actor(Role::Client)?;
    let socket = bound(client, address(from), Vec::new())?;
    let address = address_to;
    client.must(&Request::Connect { socket, address })?;
    let line = client.must(&Request::ReceiveLine { socket })?;
    ensure!(
        matches!(&line, Reply::Data(line) if line.contains("proxy:15006")),
        "{line:?}"
    );
    Ok(())
}
