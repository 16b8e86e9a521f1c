//! The expected properties of DNS queries over UDP while the pod is captured.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use socket2::{Domain, Socket, Type};

use super::{namespace::Namespace, tcp};
use crate::actor::{process::options, protocol::SocketOption};

const SERVER_PORT: u16 = 53;
const AGENT_PORT: u16 = 15053;
/// The pod's interface.
const INTERFACE: &str = "veth0";
const QUERY: &[u8] = b"who is there?";
const REPLY: &[u8] = b"me";

/// A server address without a server, and the address of a socket that queries it.
const SERVERS: [(IpAddr, IpAddr); 2] = [
    (
        IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
        IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)),
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2)),
    ),
];
/// Another server address without a server.
const OTHERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 11)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x11)),
];

/// The agent receives the app's queries, and its replies have the source address that the app
/// queried.
pub(super) fn expect_captured(pod: &Namespace) -> Result<()> {
    for ((server, app), other) in SERVERS.into_iter().zip(OTHERS) {
        let server = SocketAddr::new(server, SERVER_PORT);
        let other = SocketAddr::new(other, SERVER_PORT);
        let agent = open(pod, 1337, localhost(app))?;
        connected(pod, &agent, server, app)
            .with_context(|| format!("a socket connected to {server}"))?;
        unconnected(pod, &agent, &[server, other])
            .with_context(|| format!("a socket that queries {server} and {other}"))?;
        via_interface(pod, &agent, server, app)
            .with_context(|| format!("a socket that queries {server} via {INTERFACE}"))?;
    }
    Ok(())
}

fn connected(pod: &Namespace, agent: &UdpSocket, server: SocketAddr, app: IpAddr) -> Result<()> {
    let socket = open(pod, 1000, unspecified(server))?;
    socket.connect(server)?;
    ensure!(socket.peer_addr()? == server, "{:?}", socket.peer_addr());
    ensure!(
        socket.local_addr()?.ip() == app,
        "{:?}",
        socket.local_addr()
    );
    socket.send(QUERY)?;
    let peer = reply(agent)?;
    ensure!(
        peer == socket.local_addr()?,
        "the agent got the query from {peer}"
    );
    expect_reply(&socket, server)
}

fn unconnected(pod: &Namespace, agent: &UdpSocket, servers: &[SocketAddr]) -> Result<()> {
    let socket = open(pod, 1000, unspecified(servers[0]))?;
    for server in servers {
        socket.send_to(QUERY, server)?;
    }
    for server in servers {
        reply(agent)?;
        expect_reply(&socket, *server)?;
    }
    Ok(())
}

/// systemd-resolved sends all queries like this.
fn via_interface(
    pod: &Namespace,
    agent: &UdpSocket,
    server: SocketAddr,
    app: IpAddr,
) -> Result<()> {
    let option = match server {
        SocketAddr::V4(_) => SocketOption::UnicastInterface(INTERFACE.to_owned()),
        SocketAddr::V6(_) => SocketOption::UnicastInterfaceV6(INTERFACE.to_owned()),
    };
    let socket = open(pod, 1000, unspecified(server))?;
    pod.enter(|| Ok(options::set(&socket.try_clone()?.into(), &option)?))?;
    socket.send_to(QUERY, server)?;
    let peer = reply(agent)?;
    ensure!(peer.ip() == app, "the agent got the query from {peer}");
    expect_reply(&socket, server)
}

/// Replies to the next query, and returns its source address.
fn reply(agent: &UdpSocket) -> Result<SocketAddr> {
    let mut query = [0; 64];
    let (length, from) = agent
        .recv_from(&mut query)
        .context("the agent receives no query")?;
    ensure!(&query[..length] == QUERY);
    agent.send_to(REPLY, from)?;
    Ok(from)
}

fn expect_reply(socket: &UdpSocket, server: SocketAddr) -> Result<()> {
    let mut reply = [0; 64];
    let (length, from) = socket.recv_from(&mut reply).context("no reply")?;
    ensure!(
        &reply[..length] == REPLY && from == server,
        "unexpected reply from {from}"
    );
    Ok(())
}

/// A socket of `user`, whose GID is the same number.
fn open(pod: &Namespace, user: u32, bound_to: SocketAddr) -> Result<UdpSocket> {
    pod.enter(|| {
        setfsgid(Gid::from_raw(user));
        setfsuid(Uid::from_raw(user));
        let socket = Socket::new(Domain::for_address(bound_to), Type::DGRAM, None)?;
        socket.set_read_timeout(Some(tcp::IO_TIMEOUT))?;
        if bound_to.port() != 0 {
            socket.bind(&bound_to.into())?;
        }
        Ok(UdpSocket::from(OwnedFd::from(socket)))
    })
}

fn localhost(like: IpAddr) -> SocketAddr {
    let ip = match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, AGENT_PORT)
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
