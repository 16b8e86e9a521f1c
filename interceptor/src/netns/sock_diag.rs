//! Lists and closes the TCP sockets of a network namespace (`sock_diag(7)`).

use std::{io, net::SocketAddr};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, TCP_LISTEN,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{Emitable as _, Parseable as _},
    sys::protocols::NETLINK_SOCK_DIAG,
};

use super::raw_netlink::RawNetlink;

/// In a request, for a socket of any cookie.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpSocket {
    /// The local address; an IPv4-mapped one as IPv4.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The socket's owner.
    pub uid: u32,
    /// Whether it is a listening socket.
    pub listens: bool,
    /// For a listening socket: connections waiting to be accepted; otherwise: bytes to be read.
    pub queued: u32,
    /// `TCP_LISTEN` or another state.
    pub(super) state: u8,
    family: u8,
    id: SocketId,
}

/// A `NETLINK_SOCK_DIAG` socket of the calling thread's network namespace.
pub(crate) struct SockDiag(RawNetlink);

impl SockDiag {
    pub(crate) fn open() -> io::Result<Self> {
        RawNetlink::open(NETLINK_SOCK_DIAG).map(Self)
    }

    /// Lists listening and connected sockets.
    pub(crate) fn list(&self) -> io::Result<Vec<TcpSocket>> {
        let states = StateFlags::ESTABLISHED
            | StateFlags::SYN_SENT
            | StateFlags::SYN_RECV
            | StateFlags::CLOSE_WAIT
            | StateFlags::LISTEN;
        let mut sockets = Vec::new();
        self.dump(&states, &mut |socket| sockets.push(socket.into()))?;
        Ok(sockets)
    }

    /// Calls `each` with every socket in one of these states.
    pub(super) fn dump(
        &self,
        states: &StateFlags,
        each: &mut dyn FnMut(InetResponseHeader),
    ) -> io::Result<()> {
        for (family, any) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            let request = request(family, states.clone(), any);
            let mut malformed = None;
            // The attributes after the header are not read.
            self.0.dump(SOCK_DIAG_BY_FAMILY, &request, &mut |message| {
                match InetResponseHeader::parse(message) {
                    Ok(socket) => each(socket),
                    Err(error) => malformed = Some(error),
                }
            })?;
            if let Some(error) = malformed {
                return Err(io::Error::other(error));
            }
        }
        Ok(())
    }

    /// The UID of the owner of the socket at `local` that is connected to `remote`; none if this network
    /// namespace has no such socket, or no process has the socket open.
    pub(crate) fn owner(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
        let (family, any) = match local {
            SocketAddr::V4(_) => (AF_INET, SocketId::new_v4()),
            SocketAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
        };
        let wanted = SocketId {
            source_address: local.ip(),
            source_port: local.port(),
            destination_address: remote.ip(),
            destination_port: remote.port(),
            cookie: ANY_COOKIE,
            ..any
        };
        let found = self.find(&request(family, StateFlags::all(), wanted))?;
        // The kernel may return a listener instead. It reports UID 0 for a socket without an inode.
        let found = found
            .filter(|socket| socket.inode != 0)
            .map(TcpSocket::from);
        let found = found.filter(|socket| socket.local == local && socket.remote == remote);
        Ok(found.map(|socket| socket.uid))
    }

    /// The socket of a request that names one.
    fn find(&self, request: &[u8]) -> io::Result<Option<InetResponseHeader>> {
        let mut found = None;
        let result = self.0.get(SOCK_DIAG_BY_FAMILY, request, &mut |message| {
            found = Some(InetResponseHeader::parse(message));
        });
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => found.transpose().map_err(io::Error::other),
        }
    }

    /// Closes a connection as if it had been reset: both peers get an error.
    pub(crate) fn destroy(&self, socket: &TcpSocket) -> io::Result<()> {
        let request = request(socket.family, StateFlags::all(), socket.id.clone());
        match self.0.change(SOCK_DESTROY, &request) {
            // It was closed in the meantime.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                Err(io::Error::other(
                    "the kernel cannot close connections (it lacks CONFIG_INET_DIAG_DESTROY)",
                ))
            }
            result => result,
        }
    }
}

fn request(family: u8, states: StateFlags, socket_id: SocketId) -> Vec<u8> {
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    };
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut bytes);
    bytes
}

impl From<InetResponseHeader> for TcpSocket {
    fn from(socket: InetResponseHeader) -> Self {
        let id = socket.socket_id;
        let (local, remote) = (id.source_address, id.destination_address);
        Self {
            local: SocketAddr::new(local.to_canonical(), id.source_port),
            remote: SocketAddr::new(remote.to_canonical(), id.destination_port),
            uid: socket.uid,
            listens: socket.state == TCP_LISTEN,
            queued: socket.recv_queue,
            state: socket.state,
            family: socket.family,
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    /// A socket with the given address on this side.
    fn socket(local: SocketAddr) -> Option<TcpSocket> {
        let sockets = SockDiag::open().unwrap().list().unwrap();
        sockets.into_iter().find(|socket| socket.local == local)
    }

    #[test]
    fn connections_of_both_families_are_listed() {
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            mapped.into(),
        ];
        for address in addresses {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let server = listener.local_addr().unwrap();
            let server = SocketAddr::new(server.ip().to_canonical(), server.port());
            let client = TcpStream::connect(server).unwrap().local_addr().unwrap();
            let listening = socket(server).unwrap();
            assert!(listening.listens);
            assert_eq!(listening.uid, nix::unistd::getuid().as_raw());
            assert_eq!(listening.queued, 1);
            let _accepted = listener.accept().unwrap();
            assert_ne!(client, server);
        }
    }

    #[test]
    fn a_connection_has_an_owner_while_a_process_has_it_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let (accepted, local) = listener.accept().unwrap();
        let diag = SockDiag::open().unwrap();
        let own = nix::unistd::getuid().as_raw();
        assert_eq!(diag.owner(local, server).unwrap(), Some(own));
        // A listener at the address, but no connection.
        let other = SocketAddr::new(local.ip(), 1);
        assert_eq!(diag.owner(server, other).unwrap(), None);
        drop(client);
        assert_eq!(diag.owner(local, server).unwrap(), None);
        drop(accepted);
    }

    #[test]
    fn destroying_a_connection_twice_is_no_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = stream.local_addr().unwrap();
        let connection = socket(local).unwrap();
        let diag = SockDiag::open().unwrap();
        diag.destroy(&connection).unwrap();
        assert_eq!(socket(local), None);
        diag.destroy(&connection).unwrap();
    }
}
