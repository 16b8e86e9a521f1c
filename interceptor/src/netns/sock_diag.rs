//! The TCP sockets of a network namespace, and ending them (`sock_diag(7)`).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::raw_netlink::{Ask, RawNetlink, number};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`)
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

/// `enum tcp_state`
const ESTABLISHED: u8 = 1;
pub(super) const SYN_SENT: u8 = 2;
pub(super) const SYN_RECEIVED: u8 = 3;
const CLOSE_WAIT: u8 = 8;
pub(super) const LISTEN: u8 = 10;

/// `struct inet_diag_sockid`
const ID: usize = 48;

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// This end.
    pub local: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
    /// Who opened it.
    pub uid: u32,
    /// Whether it waits for connections.
    pub listens: bool,
    /// How many connections wait to be accepted if it listens, else how many bytes to be read.
    pub queued: u32,
    pub(super) state: u8,
    family: u8,
    id: [u8; ID],
}

/// A question to the calling thread's network namespace.
pub struct SockDiag(RawNetlink);

impl SockDiag {
    /// Ready to ask.
    pub fn open() -> io::Result<Self> {
        RawNetlink::open(SockProtocol::NetlinkSockDiag).map(Self)
    }

    /// The sockets that listen and those that are connected.
    pub fn list(&self) -> io::Result<Vec<TcpSocket>> {
        let states = [ESTABLISHED, SYN_SENT, SYN_RECEIVED, CLOSE_WAIT, LISTEN];
        let mut sockets = Vec::new();
        self.dump(&states, &mut |message| sockets.extend(parse(message)))?;
        Ok(sockets)
    }

    /// Has `each` read the `struct inet_diag_msg` of every socket in one of these states.
    pub(super) fn dump(&self, states: &[u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let states = states.iter().fold(0, |all, state| all | 1_u32 << state);
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).map_err(io::Error::other)?;
            let request = request(family, states, &[0; ID])?;
            self.0.ask(Ask::Dump, BY_FAMILY, &request, each)?;
        }
        Ok(())
    }

    /// Ends a connection: both ends learn of it, as if it had been reset.
    pub fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let request = request(socket.family, u32::MAX, &socket.id)?;
        match self.0.ask(Ask::Change, DESTROY, &request, &mut |_| {}) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Err(
                io::Error::other("the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)"),
            ),
            result => result,
        }
    }
}

/// `struct inet_diag_req_v2`, of TCP
fn request(family: u8, states: u32, id: &[u8; ID]) -> io::Result<Vec<u8>> {
    let tcp = u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?;
    let mut request = vec![family, tcp, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(id);
    Ok(request)
}

/// `struct inet_diag_msg`
fn parse(message: &[u8]) -> Option<TcpSocket> {
    let id: [u8; ID] = message.get(4..4 + ID)?.try_into().ok()?;
    let family = message[0];
    let port = |at| u16::from_be_bytes([id[at], id[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            let bytes: [u8; 4] = id[at..at + 4].try_into().ok()?;
            return Some(bytes.into());
        }
        let bytes: [u8; 16] = id[at..at + 16].try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    Some(TcpSocket {
        local: SocketAddr::new(address(4)?.to_canonical(), port(0)),
        remote: SocketAddr::new(address(20)?.to_canonical(), port(2)),
        uid: number(message, 4 + ID + 12)?,
        listens: message[1] == LISTEN,
        queued: number(message, 4 + ID + 4)?,
        state: message[1],
        family,
        id,
    })
}
