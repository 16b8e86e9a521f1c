//! The steps of a proxy in TPROXY mode.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Introduction, Protocol, Reply, Request, SocketOption},
    },
    scenario::{Dial, Run, address},
    world::Role,
};

/// The default mark of TPROXY.
pub(super) const MARK: u32 = 1337;

/// The transparent options of a socket of `family`, with `mark`.
pub(super) fn transparent(family: Family, mark: Option<u32>) -> Vec<SocketOption> {
    let transparent = match family {
        Family::V4 => SocketOption::Transparent,
        Family::V6 => SocketOption::TransparentV6,
    };
    let mark = mark.map(SocketOption::Mark);
    [transparent].into_iter().chain(mark).collect()
}

/// A connection of the proxy from a client's address.
pub(super) fn upstream_from(client: &str, to: &str, mark: u32) -> Dial {
    let options = transparent(Family::of(address(to)), Some(mark));
    let dial = Dial::new(Role::RootProxyServer, to).from(client);
    options.into_iter().fold(dial, Dial::with)
}

/// The proxy's own listeners, whose connections the scenario accepts itself: one of each family.
pub(super) fn listen(run: &Run<'_>) -> Result<[Handle; 2]> {
    run.world().stop_proxy()?;
    let proxy = run.actor(Role::RootProxyServer)?;
    let port = run.world().setup().settings.capture_port;
    let listen = |family, ip: &str| -> Result<Handle> {
        let socket = proxy.socket(family, Protocol::Tcp)?;
        let options = [SocketOption::ReuseAddress, SocketOption::ReusePort].into_iter();
        for option in options.chain(transparent(family, None)) {
            proxy.must(&Request::Set { socket, option })?;
        }
        if family == Family::V6 {
            let option = SocketOption::V6Only(true);
            proxy.must(&Request::Set { socket, option })?;
        }
        let address = SocketAddr::new(ip.parse()?, port);
        proxy.must(&Request::Bind { socket, address })?;
        proxy.must(&Request::Listen { socket })?;
        Ok(socket)
    };
    Ok([listen(Family::V4, "0.0.0.0")?, listen(Family::V6, "::")?])
}

/// The listener for connections to `to`.
pub(super) fn listener_for(to: &str, [v4, v6]: [Handle; 2]) -> Handle {
    if address(to).ip().to_canonical().is_ipv4() {
        v4
    } else {
        v6
    }
}

fn name(actor: &Actor, request: &Request) -> Result<SocketAddr> {
    match actor.must(request)? {
        Reply::Name(name) => Ok(SocketAddr::new(name.ip().to_canonical(), name.port())),
        reply => anyhow::bail!("not a name: {reply:?}"),
    }
}

/// Opens a socket that is bound to `from` and not connected yet.
pub(super) fn bound(actor: &Actor, from: SocketAddr, options: Vec<SocketOption>) -> Result<Handle> {
    let socket = actor.socket(Family::of(from), Protocol::Tcp)?;
    for option in options {
        actor.must(&Request::Set { socket, option })?;
    }
    let address = from;
    actor.must(&Request::Bind { socket, address })?;
    Ok(socket)
}

/// A client's connection to the proxy: its ends at the client and at the proxy.
pub(super) fn connect_to_proxy(
    run: &mut Run<'_>,
    listeners: [Handle; 2],
    from: &str,
    to: &str,
) -> Result<(Handle, Handle)> {
    let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
    let near = bound(client, address(from), vec![SocketOption::ReuseAddress])?;
    let (socket, address) = (near, address(to));
    run.perform("connect", client, &Request::Connect { socket, address })?;
    let far = proxy.accept(listener_for(to, listeners))?;
    run.label("client");
    run.record_names(client, near)?;
    run.label("proxy's accepted");
    run.record_names(proxy, far)?;
    Ok((near, far))
}

/// The second half of the path: the proxy calls the app from its client's address, and the app
/// reports its peer to both. `from`: the client's address, with a port or 0.
pub(super) fn connect_to_app(
    run: &mut Run<'_>,
    (near, far): (Handle, Handle),
    from: SocketAddr,
    to: &str,
) -> Result<()> {
    let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
    let mark = run.world().setup().settings.tproxy_mark;
    let family = Family::of(from);
    let up = bound(proxy, from, transparent(family, Some(mark)))?;
    let (socket, address) = (up, address(to));
    run.label("upstream");
    run.perform("connect", proxy, &Request::Connect { socket, address })?;
    run.record_names(proxy, up)?;
    let Reply::Data(line) = proxy.must(&Request::ReceiveLine { socket: up })? else {
        anyhow::bail!("no line");
    };
    let introduction: Introduction = serde_json::from_str(&line).context(line.clone())?;
    let peer: SocketAddr = introduction.peer.parse()?;
    let own = name(proxy, &Request::LocalName { socket: up })?;
    run.record("who", introduction.server);
    run.record("app's own name", introduction.local);
    run.record("app's original destination", introduction.original_v4);
    run.expect(
        "the app gets the client's address, and the port of the proxy",
        SocketAddr::new(peer.ip().to_canonical(), peer.port()) == own
            && own.ip() == from.ip().to_canonical(),
    );
    // A line in each direction.
    let data = line + "\n";
    proxy.must(&Request::Send { socket: far, data })?;
    run.label("client");
    let received = client.call(&Request::ReceiveLine { socket: near })?;
    run.expect(
        "the client gets the app's introduction",
        matches!(received, Reply::Data(line) if line.contains("app:8080")),
    );
    echo(run, client, near, proxy, [far, up])
}

/// A line of the client, forwarded by the proxy, is echoed by the app.
fn echo(
    run: &mut Run<'_>,
    client: &Actor,
    near: Handle,
    proxy: &Actor,
    [far, up]: [Handle; 2],
) -> Result<()> {
    let data = format!("line {near}");
    let send = |actor: &Actor, socket, data: &str| {
        let data = format!("{data}\n");
        actor.must(&Request::Send { socket, data }).map(drop)
    };
    let receive = |actor: &Actor, socket| match actor.must(&Request::ReceiveLine { socket })? {
        Reply::Data(line) => Ok(line),
        reply => anyhow::bail!("not data: {reply:?}"),
    };
    send(client, near, &data)?;
    send(proxy, up, &receive(proxy, far)?)?;
    send(proxy, far, &receive(proxy, up)?)?;
    let received = receive(client, near)?;
    run.expect("the line is echoed", received == data);
    Ok(())
}
