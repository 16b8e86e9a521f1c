//! Connections in a given namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use socket2::{Domain, Socket, Type};

use super::namespace::Namespace;
use crate::{
    actor::{
        process::options,
        protocol::{Family, SocketOption},
    },
    settings::Settings,
};

/// Time limit of any operation on an emulated machine.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener on `wildcard`; `[::]` accepts IPv4 too.
pub(super) fn listen(netns: &Namespace, wildcard: &str, port: u16) -> Result<Socket> {
    netns.enter(|| listener(wildcard, port, false))
}

/// A listener of `user` on `wildcard`, for its own family only.
pub(super) fn listen_in_one_family(
    netns: &Namespace,
    user: User,
    wildcard: &str,
    port: u16,
) -> Result<Socket> {
    netns.enter(|| {
        user.assume();
        listener(wildcard, port, true)
    })
}

fn listener(wildcard: &str, port: u16, v6_only: bool) -> Result<Socket> {
    let address: SocketAddr = format!("{wildcard}:{port}").parse()?;
    let socket = open(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket)
}

/// The user of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// Sockets that this thread opens from now on are the user's.
    fn assume(self) {
        setfsgid(Gid::from_raw(self.gid));
        setfsuid(Uid::from_raw(self.uid));
    }
}

/// Connects; the inner error is the errno. A socket belongs to the thread's user, which may differ
/// from the process's.
pub(super) fn dial(
    netns: &Namespace,
    user: User,
    domain: Domain,
    to: SocketAddr,
) -> Result<io::Result<Socket>> {
    netns.enter(|| {
        user.assume();
        let socket = open(domain)?;
        Ok(socket.connect(&to.into()).map(|()| socket))
    })
}

/// Like [`dial`], by TPROXY's proxy from the address of `client`.
pub(super) fn dial_from(
    client: IpAddr,
    netns: &Namespace,
    user: User,
    to: SocketAddr,
) -> Result<io::Result<Socket>> {
    netns.enter(|| {
        user.assume();
        let socket = open(Domain::for_address(to))?;
        let transparent = match Family::of(to) {
            Family::V4 => SocketOption::Transparent,
            Family::V6 => SocketOption::TransparentV6,
        };
        options::set(&socket, &transparent)?;
        let mark = Settings::default().tproxy_mark;
        options::set(&socket, &SocketOption::Mark(mark))?;
        socket.bind(&SocketAddr::new(client, 0).into())?;
        Ok(socket.connect(&to.into()).map(|()| socket))
    })
}

fn open(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_read_timeout(Some(IO_TIMEOUT))?;
    socket.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(socket)
}

/// `getsockname(2)`; an IPv4-mapped address is returned as IPv4.
pub(super) fn local_name(socket: &Socket) -> Result<SocketAddr> {
    canonical(socket.local_addr()?.as_socket())
}

/// `getpeername(2)`, likewise.
pub(super) fn peer_name(socket: &Socket) -> Result<SocketAddr> {
    canonical(socket.peer_addr()?.as_socket())
}

fn canonical(address: Option<SocketAddr>) -> Result<SocketAddr> {
    let address = address.context("not an internet address")?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// `a.b.c.d` as an IPv4-mapped address.
pub(super) fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
