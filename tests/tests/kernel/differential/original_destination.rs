//! `SO_ORIGINAL_DST` of every kind of socket, at every time.

mod waiting;

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Family, Level, Protocol, Request, SocketOption},
    scenario::{Run, Scenario, address, differential},
    world::Role,
};
use waiting::{DIALS, Waiting, WaitingDial, manual};

fn compare(name: &str, play: impl Fn(&mut Run<'_>, WaitingDial) -> Result<()> + Copy + 'static) {
    let scenarios =
        DIALS.map(|dial| Scenario::new(format!("{name}: {dial:?}"), move |run| play(run, dial)));
    differential(&manual(), &scenarios);
}

#[test]
fn of_an_accepted_socket_and_of_the_client() {
    compare("open", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        run.label("client");
        run.record_names(waiting.client, waiting.socket)?;
        run.label("proxy");
        let accepted = waiting.accept(run)?;
        run.expect("accepted", accepted.is_some());
        Ok(())
    });
}

#[test]
fn when_the_client_has_closed_before_the_accept() {
    compare("closed early", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        waiting.close()?;
        let accepted = waiting.accept(run)?;
        run.expect("accepted", accepted.is_some());
        Ok(())
    });
}

#[test]
fn when_the_client_has_reset_before_the_accept() {
    compare("reset early", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        waiting.reset()?;
        let accepted = waiting.accept(run)?;
        run.expect("accepted", accepted.is_some());
        Ok(())
    });
}

#[test]
fn read_late() {
    compare("late", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        if let Some(accepted) = waiting.accept(run)? {
            waiting.close()?;
            run.label("client closed");
            waiting.record(run, accepted)?;
        }
        run.label("again");
        let again = Waiting::new_on(run, dial, &waiting)?;
        if let Some(accepted) = again.accept(run)? {
            again.reset()?;
            run.label("client reset");
            again.record(run, accepted)?;
        }
        Ok(())
    });
}

#[test]
fn of_the_client_when_the_proxy_has_closed_or_reset() {
    compare("server closes", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        if let Some(socket) = waiting.accept(run)? {
            waiting.proxy.must(&Request::Close { socket })?;
        }
        run.label("proxy closed");
        run.record_names(waiting.client, waiting.socket)?;
        let second = Waiting::new_on(run, dial, &waiting)?;
        if let Some(socket) = second.accept(run)? {
            let option = SocketOption::ResetOnClose;
            waiting.proxy.must(&Request::Set { socket, option })?;
            waiting.proxy.must(&Request::Close { socket })?;
        }
        run.label("proxy reset");
        run.record_names(second.client, second.socket)
    });
}

#[test]
fn of_the_client_after_the_listener_is_closed() {
    compare("listener closed", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        let accepted = waiting.accept(run)?;
        let socket = waiting.listener;
        waiting.proxy.must(&Request::Close { socket })?;
        run.label("listener closed");
        run.record_names(waiting.client, waiting.socket)?;
        match accepted {
            Some(accepted) => waiting.record(run, accepted),
            None => Ok(()),
        }
    });
}

/// The length of the buffer: too short ones are an error, longer ones are not filled.
#[test]
fn into_buffers_of_every_length() {
    compare("buffers", |run, dial| {
        let waiting = Waiting::new(run, dial)?;
        let Some(socket) = waiting.accept(run)? else {
            return Ok(());
        };
        for level in [Level::Ip, Level::Ipv6] {
            for length in [0, 1, 2, 4, 8, 15, 16, 17, 24, 27, 28, 29, 64, 128, 4096] {
                run.label(format!("{length} bytes, {level:?}"));
                let request = Request::OriginalDestination {
                    socket,
                    level,
                    length,
                };
                run.perform("", waiting.proxy, &request)?;
            }
        }
        Ok(())
    });
}

#[test]
fn of_sockets_that_are_not_connected() {
    let kinds = [
        (Family::V4, Protocol::Tcp, "0.0.0.0:0"),
        (Family::V6, Protocol::Tcp, "[::]:0"),
        (Family::V4, Protocol::Udp, "0.0.0.0:0"),
        (Family::V6, Protocol::Udp, "[::]:0"),
        (Family::V4, Protocol::Mptcp, "0.0.0.0:0"),
        (Family::V6, Protocol::Mptcp, "[::]:0"),
        (Family::V4, Protocol::Tcp, "10.1.0.2:20040"),
        (Family::V4, Protocol::Tcp, "127.0.0.1:20040"),
        (Family::V6, Protocol::Tcp, "[fd00:1::2]:20040"),
    ];
    let scenarios = kinds.map(|(family, protocol, at)| {
        Scenario::new(format!("{protocol:?} on {at}"), move |run| {
            let app = run.actor(Role::App)?;
            let socket = app.socket(family, protocol)?;
            run.label("new");
            run.record_names(app, socket)?;
            run.label("bound");
            let address = address(at);
            app.must(&Request::Bind { socket, address })?;
            run.record_names(app, socket)?;
            run.label("listening");
            run.perform("listen", app, &Request::Listen { socket })?;
            run.record_names(app, socket)
        })
    });
    differential(&manual(), &scenarios);
}

#[test]
fn of_connected_udp() {
    let scenarios = [
        "10.2.0.9:80",
        "10.1.0.2:80",
        "[fd00:2::9]:80",
        "[::ffff:10.2.0.9]:80",
    ]
    .map(|to| {
        Scenario::new(to, move |run| {
            let app = run.actor(Role::App)?;
            let address = address(to);
            let socket = app.socket(Family::of(address), Protocol::Udp)?;
            app.must(&Request::Connect { socket, address })?;
            run.record_names(app, socket)
        })
    });
    differential(&manual(), &scenarios);
}

/// Connections that pass: the app accepts them, and reads the option all the same.
#[test]
fn of_connections_that_are_not_captured() {
    let dials = [
        (Role::App, "10.1.0.2:20041", "0.0.0.0:20041"),
        (Role::App, "10.1.0.2:20041", "[::]:20041"),
        (Role::App, "127.0.0.1:20041", "0.0.0.0:20041"),
        (Role::App, "127.0.0.2:20041", "0.0.0.0:20041"),
        (Role::App, "[fd00:1::2]:20041", "[::]:20041"),
        (Role::App, "[::1]:20041", "[::]:20041"),
        (Role::Proxy, "127.0.0.1:20041", "0.0.0.0:20041"),
        (Role::Client, "10.1.0.2:15008", "10.1.0.2:15008"),
        (Role::Client, "[fd00:1::2]:15008", "[fd00:1::2]:15008"),
    ];
    let scenarios = dials.map(|(role, to, listener)| {
        Scenario::new(format!("{role:?} dials {to} at {listener}"), move |run| {
            let (client, app) = (run.actor(role)?, run.actor(Role::App)?);
            let listener = app
                .socket(Family::of(address(listener)), Protocol::Tcp)
                .and_then(|socket| {
                    let option = SocketOption::ReusePort;
                    app.must(&Request::Set { socket, option })?;
                    let option = SocketOption::ReuseAddress;
                    app.must(&Request::Set { socket, option })?;
                    let address = address(listener);
                    app.must(&Request::Bind { socket, address })?;
                    app.must(&Request::Listen { socket })?;
                    Ok(socket)
                })?;
            let address = address(to);
            let socket = client.socket(Family::of(address), Protocol::Tcp)?;
            run.perform("connect", client, &Request::Connect { socket, address })?;
            run.label("client");
            run.record_names(client, socket)?;
            let accepted = app.accept(listener)?;
            run.label("server");
            run.record_names(app, accepted)?;
            client.must(&Request::Close { socket })?;
            run.label("server, client closed");
            run.record_names(app, accepted)
        })
    });
    differential(&manual(), &scenarios);
}

/// While a connection is being established, and after it failed.
#[test]
fn of_a_client_that_is_connecting_or_was_refused() {
    let silent = ["10.1.0.77:80", "[fd00:1::77]:80"].map(|to| {
        Scenario::new(
            format!("the proxy dials {to}, without a host"),
            move |run| {
                let proxy = run.actor(Role::Proxy)?;
                let address = address(to);
                let socket = proxy.socket(Family::of(address), Protocol::Tcp)?;
                run.perform("connect", proxy, &Request::ConnectStart { socket, address })?;
                run.record_names(proxy, socket)
            },
        )
    });
    let refused = [
        (Role::App, "10.2.0.9:80"),
        (Role::App, "[fd00:2::9]:80"),
        (Role::App, "[::ffff:10.2.0.9]:80"),
        (Role::App, "127.0.0.1:81"),
        (Role::Proxy, "10.1.0.2:80"),
        (Role::Proxy, "10.2.0.9:81"),
    ]
    .map(|(role, to)| {
        Scenario::new(format!("{role:?} dials {to}, refused"), move |run| {
            run.dial(role, to)?;
            run.expect_outcome("ECONNREFUSED");
            Ok(())
        })
    });
    let scenarios: Vec<_> = silent.into_iter().chain(refused).collect();
    differential(&manual(), &scenarios);
}

/// A proxy cannot have an MPTCP socket, but the option of an app's must not change.
#[test]
fn of_multipath_tcp_accepted_by_an_app() {
    let dials = [
        (Protocol::Tcp, "10.1.0.2:20042"),
        (Protocol::Mptcp, "10.1.0.2:20042"),
    ];
    let scenarios = dials.map(|(protocol, to)| {
        Scenario::new(
            format!("a {protocol:?} client, an MPTCP listener"),
            move |run| {
                let app = run.actor(Role::App)?;
                let listener = app.socket(Family::V4, Protocol::Mptcp)?;
                let address = address(to);
                app.must(&Request::Bind {
                    socket: listener,
                    address,
                })?;
                app.must(&Request::Listen { socket: listener })?;
                let socket = app.socket(Family::V4, protocol)?;
                run.perform("connect", app, &Request::Connect { socket, address })?;
                run.label("client");
                run.record_names(app, socket)?;
                let accepted = app.accept(listener)?;
                run.label("server");
                run.record_names(app, accepted)
            },
        )
    });
    differential(&manual(), &scenarios);
}
