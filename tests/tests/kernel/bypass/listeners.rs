//! Other listeners on the proxy's ports.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Protocol, Reply, Request, SocketOption},
    },
    scenario::address,
    settings::{Dns, Settings},
    world::{Bind, Role, Setup, serve, serve_udp},
};

use super::{
    case::{Group, Who::App, case},
    options::FAR,
    outcome::{
        Outcome::{self, Inside, Proxy},
        past, refused,
    },
    run::check,
    scene::Scene,
};

const INBOUND: &str = "10.1.0.2:8080";
const DNS_SERVER: &str = "10.96.0.10:53";

/// Listens on `at` with an option, beside the proxy; then a client dials in.
fn beside(scene: &Scene, app: &Actor, at: &str, options: &[SocketOption]) -> Result<Outcome> {
    let address = address(at);
    let socket = app.socket(Family::of(address), Protocol::Tcp)?;
    for option in options {
        let option = option.clone();
        app.must(&Request::Set { socket, option })?;
    }
    for request in [
        Request::Bind { socket, address },
        Request::Listen { socket },
        Request::Serve { socket },
    ] {
        if let Reply::Error(errno) = app.call(&request)? {
            return Ok(Outcome::of_errno(errno));
        }
    }
    scene.dial_in(INBOUND)
}

/// An app of its own, which exits with its listeners.
fn guest(scene: &Scene) -> Result<Actor> {
    let app = interceptor_testkit::users::APP;
    scene.world.start_in_pod("guest", app, "pod/Guest")
}

/// The app listens on the proxy's port, and the proxy does not.
fn instead(scene: &Scene, port: u16) -> Result<Actor> {
    scene.world.stop_proxy()?;
    let app = guest(scene)?;
    serve(&app, Bind::V4_WILDCARD, port)?;
    Ok(app)
}

/// The app asks a DNS server while another app listens on the port of the DNS proxy.
fn query_stolen(scene: &Scene) -> Result<Outcome> {
    scene.world.stop_proxy()?;
    let guest = guest(scene)?;
    serve_udp(&guest, address("127.0.0.1:15053"))?;
    let app = scene.app()?;
    let socket = app.socket(Family::V4, Protocol::Udp)?;
    let address = address(DNS_SERVER);
    let data = "query".to_owned();
    app.must(&Request::SendTo {
        socket,
        address,
        data,
    })?;
    let reply = app.call(&Request::ReceiveFrom {
        socket,
        peek: false,
    })?;
    Ok(match reply {
        Reply::Error(errno) => Outcome::of_errno(errno),
        reply if format!("{reply:?}").contains("guest:15053") => Inside,
        reply => anyhow::bail!("unexpected: {reply:?}"),
    })
}

/// The app accepts by `io_uring` what a client dials.
fn ring_accept(scene: &Scene) -> Result<Outcome> {
    let app = guest(scene)?;
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    let address = address("10.1.0.2:7777");
    app.must(&Request::Bind { socket, address })?;
    app.must(&Request::Listen { socket })?;
    let outcome = scene.dial_in("10.1.0.2:7777");
    match app.call(&Request::RingAccept { socket })? {
        Reply::Socket(_) => Ok(past("the app accepts")),
        _ => outcome,
    }
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn listeners_on_ports_of_the_proxy() {
    check(&Group {
        title: "listeners on the proxy's ports",
        setup: Setup {
            dns: true,
            ..Setup::with(Settings {
                dns: Dns::All,
                ..Settings::default()
            })
        },
        cases: vec![
            case(
                App,
                "beside the proxy on 15006, `SO_REUSEPORT`",
                |scene| {
                    let options = [SocketOption::ReuseAddress, SocketOption::ReusePort];
                    beside(scene, &guest(scene)?, "0.0.0.0:15006", &options)
                },
                [refused("EADDRINUSE"), refused("EADDRINUSE")],
            ),
            case(
                App,
                "on the pod's address beside the proxy's wildcard on 15006",
                |scene| {
                    let options = [SocketOption::ReuseAddress, SocketOption::ReusePort];
                    beside(scene, &guest(scene)?, "10.1.0.2:15006", &options)
                },
                [refused("EADDRINUSE"), refused("EADDRINUSE")],
            ),
            case(
                App,
                "on an address that the pod does not have, `IP_FREEBIND`",
                |scene| {
                    let options = [SocketOption::FreeBind, SocketOption::V6Only(true)];
                    beside(scene, &guest(scene)?, "[2001:db8::1]:15006", &options)
                },
                [refused("EADDRINUSE"), refused("EADDRINUSE")],
            ),
            case(
                App,
                "on 15006 instead of the proxy: a client dials in",
                |scene| {
                    let _guest = instead(scene, 15006)?;
                    scene.dial_in(INBOUND)
                },
                [past("guest:15006"), past("guest:15006")],
            )
            .strict(refused("ECONNREFUSED")),
            case(
                App,
                "on 15001 instead of the proxy: the app dials",
                |scene| {
                    let _guest = instead(scene, 15001)?;
                    scene.dial(scene.app()?, FAR)
                },
                [Inside, Inside],
            )
            .strict(refused("ECONNREFUSED")),
            case(
                App,
                "on 15053 instead of the DNS proxy: the app queries, TCP",
                |scene| {
                    let _guest = instead(scene, 15053)?;
                    scene.dial(scene.app()?, DNS_SERVER)
                },
                [Inside, Inside],
            )
            .strict(refused("ECONNREFUSED")),
            case(
                App,
                "on 15053 instead of the DNS proxy: the app queries, UDP",
                query_stolen,
                [Inside, Inside],
            ),
            case(
                App,
                "io_uring: `IORING_OP_ACCEPT`, while a client dials in",
                ring_accept,
                [Proxy, Proxy],
            ),
            case(
                App,
                "no proxy listens: the app dials",
                |scene| {
                    scene.world.stop_proxy()?;
                    scene.dial(scene.app()?, FAR)
                },
                [refused("ECONNREFUSED"), refused("ECONNREFUSED")],
            ),
            case(
                App,
                "no proxy listens: a client dials in",
                |scene| {
                    scene.world.stop_proxy()?;
                    scene.dial_in(INBOUND)
                },
                [refused("ECONNREFUSED"), refused("ECONNREFUSED")],
            ),
            case(
                App,
                "on 15001: the app dials its own proxy port",
                |scene| scene.dial(scene.world.actor(Role::App)?, "127.0.0.1:15001"),
                [Proxy, Proxy],
            ),
        ],
    });
}
