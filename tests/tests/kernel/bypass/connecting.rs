//! Ways to connect other than a plain `connect(2)`.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor, handle,
        protocol::{Family, Handle, Protocol, Request, SocketOption},
    },
    scenario::address,
    settings::Settings,
    world::{Role, Setup},
};

use super::{
    case::{Group, Who::App, case},
    options::{FAR, FAR_V6},
    outcome::{
        Outcome::{self, Inside, Proxy},
        refused,
    },
    run::check,
    scene::Scene,
};

const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
/// A client's and a server's end of one connection.
const OWN_END: &str = "10.1.0.2:7001";
const NEAR_END: &str = "10.1.0.1:7000";
/// A destination that the group's settings exclude, and one that it announces.
const EXCLUDED: &str = "10.2.0.10:7002";
const ANNOUNCED: (&str, u16) = ("10.2.0.9", 7003);

fn socket(scene: &Scene) -> Result<(&Actor, Handle)> {
    let app = scene.app()?;
    Ok((app, app.socket(Family::V4, Protocol::Tcp)?))
}

/// `MSG_FASTOPEN`, with the data in the SYN.
fn fast_open(scene: &Scene, to: &str) -> Result<Outcome> {
    let app = scene.app()?;
    let address = address(to);
    let socket = app.socket(Family::of(address), Protocol::Tcp)?;
    let option = SocketOption::Other {
        level: libc::IPPROTO_TCP,
        name: TCP_FASTOPEN_NO_COOKIE,
        value: 1_i32.to_ne_bytes().to_vec(),
    };
    app.must(&Request::Set { socket, option })?;
    let data = "secret\n".to_owned();
    let sent = app.call(&Request::FastOpenSend {
        socket,
        address,
        data,
    })?;
    scene.follow(app, socket, sent)
}

/// `TCP_FASTOPEN_CONNECT`: the SYN leaves with the first data.
fn fast_open_connect(scene: &Scene) -> Result<Outcome> {
    let (app, socket) = socket(scene)?;
    let option = SocketOption::FastOpenConnect;
    app.must(&Request::Set { socket, option })?;
    let address = address(FAR);
    app.must(&Request::Connect { socket, address })?;
    let data = "secret\n".to_owned();
    let sent = app.call(&Request::Send { socket, data })?;
    scene.follow(app, socket, sent)
}

fn by_ring(scene: &Scene, to: &str, poll: bool) -> Result<Outcome> {
    let app = scene.app()?;
    let address = address(to);
    let socket = app.socket(Family::of(address), Protocol::Tcp)?;
    let reply = app.call(&Request::RingConnect {
        socket,
        address,
        poll,
    })?;
    scene.follow(app, socket, reply)
}

fn multipath(scene: &Scene) -> Result<Outcome> {
    let app = scene.app()?;
    let socket = app.socket(Family::V4, Protocol::Mptcp)?;
    scene.connect(app, socket, address(FAR))
}

/// A server that the settings exclude announces another address (`ADD_ADDR`), and the kernel of the
/// app joins it.
fn announced(scene: &Scene) -> Result<Outcome> {
    let (pod, peer) = (scene.world.pod(), scene.world.peer());
    let limits = "mptcp limits set subflows 2 add_addr_accepted 2";
    pod.ip(limits)?;
    peer.ip(limits)?;
    let (ip, port) = ANNOUNCED;
    peer.ip(&format!("mptcp endpoint add {ip} signal port {port}"))?;
    let server = scene.world.actor(Role::Remote)?;
    let listener = server.socket(Family::V4, Protocol::Mptcp)?;
    let excluded = address(EXCLUDED);
    let (socket, address) = (listener, excluded);
    server.must(&Request::Bind { socket, address })?;
    server.must(&Request::Listen { socket })?;
    let app = scene.app()?;
    let socket = app.socket(Family::V4, Protocol::Mptcp)?;
    app.must(&Request::Connect { socket, address })?;
    let socket = handle(server.must(&Request::Accept { socket: listener })?)?;
    let data = "secret\n".to_owned();
    server.must(&Request::Send { socket, data })?;
    let outcome = scene.joining(port)?;
    peer.ip("mptcp endpoint flush")?;
    Ok(outcome)
}

fn sendto_unconnected(scene: &Scene) -> Result<Outcome> {
    let (app, socket) = socket(scene)?;
    let sent = app.call(&Request::SendTo {
        socket,
        address: address(FAR),
        data: "secret\n".to_owned(),
    })?;
    scene.follow(app, socket, sent)
}

fn after_disconnecting(scene: &Scene) -> Result<Outcome> {
    let app = scene.app()?;
    let socket = app.connect(address("127.0.0.1:8080"))?;
    app.must(&Request::Disconnect { socket })?;
    scene.connect(app, socket, address(FAR))
}

/// Both ends dial each other.
fn simultaneous_open(scene: &Scene) -> Result<Outcome> {
    let ends = [
        (scene.app()?, OWN_END, NEAR_END),
        (scene.neighbour()?, NEAR_END, OWN_END),
    ];
    let mut sockets = Vec::new();
    for (actor, from, _) in ends {
        let socket = actor.socket(Family::V4, Protocol::Tcp)?;
        let address = address(from);
        actor.must(&Request::Bind { socket, address })?;
        sockets.push(socket);
    }
    for ((actor, _, to), socket) in ends.into_iter().zip(&sockets) {
        let (socket, address) = (*socket, address(to));
        actor.call(&Request::ConnectStart { socket, address })?;
    }
    let (app, socket) = (scene.app()?, sockets[0]);
    app.call(&Request::ConnectFinish { socket })?;
    let reply = app.call(&Request::ReceiveLine { socket })?;
    scene.outbound_beside_inbound(reply)
}

/// A socket connects to its own address and port.
fn self_connect(scene: &Scene) -> Result<Outcome> {
    let (app, socket) = socket(scene)?;
    let address = address(OWN_END);
    app.must(&Request::Bind { socket, address })?;
    app.must(&Request::Connect { socket, address })?;
    let data = "secret\n".to_owned();
    app.must(&Request::Send { socket, data })?;
    let echo = app.must(&Request::ReceiveLine { socket })?;
    anyhow::ensure!(format!("{echo:?}").contains("secret"), "{echo:?}");
    Ok(match scene.leaving()? {
        Outcome::NothingArrives => Inside,
        leaving => leaving,
    })
}

#[test]
fn ways_to_connect() {
    check(&Group {
        title: "ways to connect",
        setup: Setup::with(Settings {
            outbound_excluded_cidrs: "10.2.0.10/32",
            ..Settings::default()
        }),
        cases: vec![
            case(
                App,
                "io_uring: `IORING_OP_CONNECT`, IPv4",
                |scene| by_ring(scene, FAR, false),
                [Proxy, Proxy],
            ),
            case(
                App,
                "io_uring: `IORING_OP_CONNECT`, IPv6",
                |scene| by_ring(scene, FAR_V6, false),
                [Proxy, Proxy],
            ),
            case(
                App,
                "io_uring: a thread of the kernel connects (`IORING_SETUP_SQPOLL`)",
                |scene| by_ring(scene, FAR, true),
                [Proxy, Proxy],
            ),
            case(
                App,
                "io_uring: a direct descriptor, which is in no file table",
                |scene| {
                    let address = address(FAR);
                    scene.outbound(scene.app()?.call(&Request::RingDirect { address })?)
                },
                [Proxy, Proxy],
            ),
            case(
                App,
                "TCP Fast Open by `MSG_FASTOPEN`, data in the SYN, IPv4",
                |scene| fast_open(scene, FAR),
                [Proxy, Proxy],
            ),
            case(
                App,
                "TCP Fast Open by `MSG_FASTOPEN`, data in the SYN, IPv6",
                |scene| fast_open(scene, FAR_V6),
                [Proxy, Proxy],
            ),
            case(
                App,
                "TCP Fast Open by `TCP_FASTOPEN_CONNECT`",
                fast_open_connect,
                [Proxy, Proxy],
            ),
            case(App, "Multipath TCP", multipath, [Proxy, Proxy]),
            case(
                App,
                "Multipath TCP: an excluded server announces a captured address (`ADD_ADDR`)",
                announced,
                [Proxy, Proxy],
            ),
            case(
                App,
                "`sendto(2)` with an address on an unconnected TCP socket",
                sendto_unconnected,
                [refused("EPIPE"), refused("EPIPE")],
            ),
            case(
                App,
                "connecting again after `AF_UNSPEC`",
                after_disconnecting,
                [Proxy, Proxy],
            ),
            case(
                App,
                "a simultaneous open with a neighbour",
                simultaneous_open,
                [Proxy, Proxy],
            ),
            case(
                App,
                "a socket that connects to itself",
                self_connect,
                [Inside, Inside],
            ),
        ],
    });
}
