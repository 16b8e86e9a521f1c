//! Receiving datagrams, with the names of their senders.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmsg},
};
use socket2::Socket;

use super::protocol::{Datagram, PacketInfo};

/// More than any test sends.
const MAX_DATAGRAM: usize = 4096;

/// `sendmsg(2)` with `IP_PKTINFO` or `IPV6_PKTINFO`.
pub(super) fn send_with(
    socket: &Socket,
    to: Option<SocketAddr>,
    data: &str,
    info: &PacketInfo,
) -> io::Result<usize> {
    let index = match &info.interface {
        Some(name) => if_nametoindex(name.as_str())?,
        None => 0,
    };
    let to = to.map(SockaddrStorage::from);
    let slices = [IoSlice::new(data.as_bytes())];
    let send = |info| {
        let flags = MsgFlags::empty();
        sendmsg(socket.as_raw_fd(), &slices, &[info], flags, to.as_ref())
    };
    Ok(match info.source {
        IpAddr::V4(v4) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            ipi_spec_dst: libc::in_addr {
                s_addr: v4.to_bits().to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        }))?,
        IpAddr::V6(v6) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: v6.octets(),
            },
            ipi6_ifindex: index,
        }))?,
    })
}

/// `recvfrom(2)`
pub(super) fn receive(socket: &Socket, peek: bool) -> io::Result<Datagram> {
    let socket = UdpSocket::from(socket.try_clone()?);
    let mut buffer = [0; MAX_DATAGRAM];
    let (length, sender) = if peek {
        socket.peek_from(&mut buffer)?
    } else {
        socket.recv_from(&mut buffer)?
    };
    Ok(datagram(&buffer[..length], sender))
}

/// `recvmmsg(2)`, which waits until there are `count`.
pub(super) fn receive_many(socket: &Socket, count: usize) -> io::Result<Vec<Datagram>> {
    let mut buffers = vec![[0; MAX_DATAGRAM]; count];
    let mut slices: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| [IoSliceMut::new(buffer)])
        .collect();
    let mut headers = MultiHeaders::preallocate(count, None);
    let messages = recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        MsgFlags::empty(),
        None,
    )?;
    messages
        .map(|message| {
            let data: Vec<u8> = message.iovs().flatten().copied().collect();
            let sender = message.address.and_then(internet);
            Ok(datagram(&data, sender.ok_or(io::ErrorKind::InvalidData)?))
        })
        .collect()
}

fn internet(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    };
    v4.or_else(v6)
}

fn datagram(data: &[u8], sender: SocketAddr) -> Datagram {
    Datagram {
        data: String::from_utf8_lossy(data).into_owned(),
        sender,
    }
}
