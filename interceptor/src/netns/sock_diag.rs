//! The TCP sockets of a network namespace, and ending them (`sock_diag(7)`, netlink by hand: the one
//! crate for it is not kept up with the others).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (`include/uapi/linux/sock_diag.h`)
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

/// `enum tcp_state`
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECEIVED: u8 = 3;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

const HEADER: usize = 16;
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
    family: u8,
    id: [u8; ID],
}

/// A question to the calling thread's network namespace.
pub struct SockDiag(OwnedFd);

impl SockDiag {
    /// Ready to ask.
    pub fn open() -> nix::Result<Self> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).map(Self)
    }

    /// The sockets that listen and those that are connected.
    pub fn list(&self) -> io::Result<Vec<TcpSocket>> {
        let mut sockets = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let states = [ESTABLISHED, SYN_SENT, SYN_RECEIVED, CLOSE_WAIT, LISTEN];
            let states = states.iter().fold(0, |all, state| all | 1_u32 << state);
            let family = u8::try_from(family).map_err(io::Error::other)?;
            let dump = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.ask(BY_FAMILY, dump, family, states, &[0; ID])?;
            while self.read(&mut |message| sockets.extend(parse(message)))? {}
        }
        Ok(sockets)
    }

    /// Ends a connection: both ends learn of it, as if it had been reset.
    pub fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.ask(DESTROY, flags, socket.family, u32::MAX, &socket.id)?;
        match self.read(&mut |_| {}) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Err(
                io::Error::other("the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)"),
            ),
            result => result.map(drop),
        }
    }

    /// `struct inet_diag_req_v2`
    fn ask(&self, kind: u16, flags: i32, family: u8, states: u32, id: &[u8; ID]) -> io::Result<()> {
        let flags = u16::try_from(flags).map_err(io::Error::other)?;
        let length = u32::try_from(HEADER + 8 + ID).map_err(io::Error::other)?;
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        let tcp = u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?;
        message.extend([family, tcp, 0, 0]);
        message.extend(states.to_ne_bytes());
        message.extend(id);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads one datagram of answers. Says whether there are more.
    fn read(&self, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(size) = number(rest, 0).and_then(|size| usize::try_from(size).ok())
            && let Some(message) = rest.get(HEADER..size)
        {
            match i32::from(u16::from_ne_bytes([rest[4], rest[5]])) {
                libc::NLMSG_DONE => return Ok(false),
                libc::NLMSG_ERROR => return errno(message).map(|()| false),
                _ => each(message),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }
}

fn errno(message: &[u8]) -> io::Result<()> {
    match number(message, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
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
        family,
        id,
    })
}
