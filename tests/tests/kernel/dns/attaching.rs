//! The effects of attaching and detaching on sockets that query DNS servers.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Datagram, Family, Handle, IdentityReply, Protocol, Reply, Request},
    },
    attachment::Attachment,
    lab::{self, Lab, NOTHING, STOCK},
    netns::Netns,
    scenario::address,
    settings::{Dns, Settings},
    world::{Mechanism, Role, Setup, World},
};

fn captured() -> Result<World> {
    let setup = Setup {
        dns: true,
        ..Setup::with(all_dns())
    };
    World::new(Mechanism::Interceptor, &setup)
}

fn all_dns() -> Settings {
    Settings {
        dns: Dns::All,
        ..Settings::default()
    }
}

const QUERY: &str = "who is there?";

fn connect(app: &Actor, socket: Handle, to: &str) -> Result<()> {
    let address = address(to);
    app.must(&Request::Connect { socket, address }).map(drop)
}

fn send(app: &Actor, socket: Handle) -> Result<()> {
    let data = QUERY.to_owned();
    app.must(&Request::Send { socket, data }).map(drop)
}

fn send_to(app: &Actor, socket: Handle, to: &str) -> Result<()> {
    let (address, data) = (address(to), QUERY.to_owned());
    app.must(&Request::SendTo {
        socket,
        address,
        data,
    })
    .map(drop)
}

/// The server that replies, its address, and the source address that it gets.
fn receive(app: &Actor, socket: Handle) -> Result<(String, SocketAddr, String)> {
    let peek = false;
    match app.must(&Request::ReceiveFrom { socket, peek })? {
        Reply::Datagrams(datagrams) => {
            let [Datagram { data, sender }] = datagrams.as_slice() else {
                bail!("{datagrams:?}");
            };
            let response: IdentityReply = serde_json::from_str(data).context(data.clone())?;
            let observed_peer: SocketAddr = response.peer.parse()?;
            Ok((response.server, *sender, observed_peer.ip().to_string()))
        }
        reply => bail!("{reply:?}"),
    }
}

fn name(app: &Actor, request: &Request) -> Result<SocketAddr> {
    match app.must(request)? {
        Reply::Name(name) => Ok(name),
        reply => bail!("{reply:?}"),
    }
}

/// Every observation that a hook affects.
fn observed(app: &Actor) -> Result<Vec<String>> {
    let mut observed = Vec::new();
    for (server, next) in [
        ("10.96.0.10:53", "127.0.0.53:53"),
        ("[fd00:96::10]:53", "[::1]:53"),
        ("[::ffff:10.96.0.10]:53", "[::ffff:127.0.0.53]:53"),
    ] {
        let socket = app.socket(Family::of(address(server)), Protocol::Udp)?;
        connect(app, socket, server)?;
        let local = name(app, &Request::LocalName { socket })?.ip();
        let peer = name(app, &Request::PeerName { socket })?;
        send(app, socket)?;
        let received = receive(app, socket)?;
        observed.push(format!("{server}: {local} to {peer}: {received:?}"));
        app.must(&Request::Disconnect { socket })?;
        connect(app, socket, next)?;
        let local = name(app, &Request::LocalName { socket })?.ip();
        send(app, socket)?;
        let received = receive(app, socket)?;
        observed.push(format!("{server}, and then from {local}: {received:?}"));
    }
    for servers in [
        ["10.96.0.10:53", "10.2.0.9:53"],
        ["[fd00:96::10]:53", "[::ffff:10.2.0.9]:53"],
    ] {
        let socket = app.socket(Family::of(address(servers[0])), Protocol::Udp)?;
        for server in servers {
            send_to(app, socket, server)?;
            let (name, sender, _) = receive(app, socket)?;
            observed.push(format!("{server}: {name} {sender}"));
        }
    }
    app.must(&Request::CloseAll)?;
    Ok(observed)
}

/// Another pod at a cgroup below: the programs for the first pod's sockets run twice.
#[test]
fn running_twice_changes_nothing() -> Result<()> {
    let world = captured()?;
    let app = world.actor(Role::App)?;
    let once = observed(app)?;
    ensure!(
        once.iter().all(|observed| observed.contains("agent:15053")),
        "{once:#?}"
    );
    let cgroup = world.cgroup().child("pod")?;
    let other = Netns::new("other", Some(&cgroup))?;
    other.ip("link add eth0 type veth peer name eth1\n\
         link set eth0 up\n\
         addr add 10.7.0.2/24 dev eth0")?;
    let node = world.peer().path();
    let attachment = Attachment::new(other.path(), node, &cgroup, &all_dns())?;
    assert_eq!(observed(app)?, once);
    drop(attachment);
    assert_eq!(observed(app)?, once);
    Ok(())
}

/// A connected socket continues to query the agent; a query that names a server reaches that
/// server.
#[test]
fn a_detach_ends_the_capture() -> Result<()> {
    const SERVER: &str = "10.96.0.10:53";

    let mut world = captured()?;
    let query = |app: &Actor, socket| {
        send_to(app, socket, SERVER)?;
        receive(app, socket)
    };
    let open = |app: &Actor| app.socket(Family::V4, Protocol::Udp);
    let app = world.actor(Role::App)?;
    let (connected, unconnected) = (open(app)?, open(app)?);
    connect(app, connected, SERVER)?;
    send(app, connected)?;
    assert_eq!(receive(app, connected)?.0, "agent:15053");
    assert_eq!(query(app, unconnected)?.0, "agent:15053");
    world.detach();
    let app = world.actor(Role::App)?;
    send(app, connected)?;
    assert_eq!(receive(app, connected)?.0, "agent:15053");
    for socket in [unconnected, open(app)?] {
        let (name, sender, _) = query(app, socket)?;
        assert_eq!(name, "remote:53");
        assert_eq!(sender, address(SERVER));
    }
    Ok(())
}

/// Also the servers with a stand-in, and TCP's listener.
#[test]
fn a_detach_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let before = lab.traces()?;
    let dns = ["--redirect-dns", "--capture-all-dns"];
    lab.attach(&[STOCK, &dns].concat())?;
    let socket = lab.app.socket(Family::V4, Protocol::Udp)?;
    for server in ["10.96.0.10:53", "10.2.0.9:53", "10.2.0.10:53"] {
        send_to(&lab.app, socket, server)?;
    }
    let refused = lab::dial(&lab.app, "10.2.0.9:53")?;
    assert_eq!(refused, "ECONNREFUSED");
    lab.detach()?;
    assert_eq!(lab.leftovers()?, NOTHING);
    let changes = lab.changes_since(&before)?;
    ensure!(changes.is_empty(), "{changes:?}");
    Ok(())
}
