//! Many destinations, and many concurrent connections.

use std::{net::SocketAddr, thread};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Introduction, Level, Protocol, Reply, Request},
    },
    scenario::address,
    users::APP,
    world::{Mechanism, Role, Setup, World},
};

fn captured(setup: &Setup) -> World {
    World::new(Mechanism::Interceptor, setup).expect("a world")
}

/// The `number`th of a million destinations. No host has it; the proxy responds for all.
fn destination(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, 128 + a, b, c], 80))
}

/// Connects, and checks that client and proxy have the same destination.
fn connect(actor: &Actor, to: SocketAddr) -> Result<Handle> {
    let socket = actor.socket(Family::of(to), Protocol::Tcp)?;
    actor.must(&Request::Connect {
        socket,
        address: to,
    })?;
    let Reply::Data(line) = actor.must(&Request::ReceiveLine { socket })? else {
        anyhow::bail!("no introduction");
    };
    let introduction: Introduction = serde_json::from_str(&line).context(line)?;
    ensure!(
        introduction.server == "proxy:15001",
        "{to}: {introduction:?}"
    );
    ensure!(
        introduction.original_v4 == to.to_string(),
        "{to}: {introduction:?}"
    );
    let peer = actor.must(&Request::PeerName { socket })?;
    ensure!(peer == Reply::Name(to), "{to}: {peer:?}");
    Ok(socket)
}

fn connect_and_close(actor: &Actor, to: SocketAddr) -> Result<()> {
    connect(actor, to)?;
    actor.must(&Request::CloseAll).map(drop)
}

/// Processes that dial the same new destinations at the same time, and some of their own: no proxy
/// gets another client's destination.
#[test]
fn concurrent_connections_are_not_mixed_up() {
    const DIALS: u32 = 300;

    let world = captured(&Setup::default());
    let actors: Vec<_> = (0..6)
        .map(|number| world.start_in_pod("app", APP, &format!("pod/{number}")))
        .collect::<Result<_>>()
        .expect("actors");
    thread::scope(|scope| {
        for (number, actor) in (1_u32..).zip(&actors) {
            scope.spawn(move || {
                for turn in 0..DIALS {
                    connect_and_close(actor, destination(turn)).expect("a shared destination");
                    let own = destination(number << 16 | turn);
                    connect_and_close(actor, own).expect("an own destination");
                }
            });
        }
    });
}

/// More destinations than a pod has stand-ins. Open connections survive; a later lookup returns
/// their own destination, or that it is unknown, and never another's.
#[test]
fn more_destinations_than_stand_ins() {
    const OPEN: u32 = 40;
    const MANY: u32 = 20_000;

    let setup = Setup {
        proxy: &[],
        ..Setup::default()
    };
    let world = captured(&setup);
    let (app, proxy) = (
        world.actor(Role::App).expect("an app"),
        world.actor(Role::ProxyServer).expect("a proxy"),
    );
    let listener = proxy.listen(address("0.0.0.0:15001")).expect("a listener");
    let open: Vec<_> = (0..OPEN)
        .map(|number| accepted(app, proxy, listener, destination(number)))
        .collect::<Result<_>>()
        .expect("open connections");
    proxy
        .must(&Request::Close { socket: listener })
        .expect("closed");
    let closer = world
        .start_in_pod("app", APP, "pod/closer")
        .expect("an actor");
    for number in OPEN..MANY {
        refused(&closer, destination(number)).expect("a refusal");
    }
    for (number, (client, server)) in (0_u32..).zip(open) {
        let own = destination(number);
        let original = query(proxy, server, Level::Ip).expect("a response");
        assert!(is_own_or_unknown(&original, own), "{own}: {original:?}");
        let data = "ping\n".to_owned();
        app.must(&Request::Send {
            socket: client,
            data,
        })
        .expect("sent");
        let received = proxy.must(&Request::ReceiveLine { socket: server });
        assert_eq!(received.expect("a line"), Reply::Data("ping".to_owned()));
    }
}

/// No listener is left: allocates a stand-in at the lowest cost.
fn refused(actor: &Actor, to: SocketAddr) -> Result<()> {
    let socket = actor.socket(Family::of(to), Protocol::Tcp)?;
    let reply = actor.call(&Request::Connect {
        socket,
        address: to,
    })?;
    ensure!(
        reply == Reply::Error("ECONNREFUSED".to_owned()),
        "{to}: {reply:?}"
    );
    actor.must(&Request::Close { socket }).map(drop)
}

fn accepted(
    app: &Actor,
    proxy: &Actor,
    listener: Handle,
    to: SocketAddr,
) -> Result<(Handle, Handle)> {
    let socket = app.socket(Family::of(to), Protocol::Tcp)?;
    app.must(&Request::Connect {
        socket,
        address: to,
    })?;
    let server = proxy.accept(listener)?;
    let original = query(proxy, server, Level::Ip)?;
    let reads = matches!(&original, Reply::Original { address, .. } if *address == to);
    ensure!(reads, "{to}: {original:?}");
    Ok((socket, server))
}

fn query(proxy: &Actor, socket: Handle, level: Level) -> Result<Reply> {
    let length = size_of::<libc::sockaddr_in>();
    proxy.call(&Request::OriginalDestination {
        socket,
        level,
        length,
    })
}

fn is_own_or_unknown(reply: &Reply, own: SocketAddr) -> bool {
    match reply {
        Reply::Original { address, .. } => *address == own,
        Reply::Error(errno) => errno == "ENOENT",
        _ => false,
    }
}
