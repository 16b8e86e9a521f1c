//! Socket options by name.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
};

use nix::net::if_::if_nametoindex;
use socket2::Socket;

use super::{protocol::SocketOption, raw};

const IPV6_RTHDR: i32 = 57;
/// `IP_UNICAST_IF`, which libc does not name.
const IP_UNICAST_IF: i32 = 50;

const ON: [u8; 4] = 1_i32.to_ne_bytes();

/// Sets `option`.
pub(crate) fn set(socket: &Socket, option: &SocketOption) -> io::Result<()> {
    let (level, name, value) = raw_form(option)?;
    Ok(raw::set_option(socket.as_fd(), level, name, &value)?)
}

/// Level, name and value for `setsockopt(2)`.
fn raw_form(option: &SocketOption) -> io::Result<(i32, i32, Vec<u8>)> {
    use SocketOption as O;
    use libc::{IPPROTO_TCP, SOL_IP, SOL_IPV6, SOL_SOCKET};

    let (level, name, value) = match option {
        O::ReuseAddress => (SOL_SOCKET, libc::SO_REUSEADDR, ON),
        O::ReusePort => (SOL_SOCKET, libc::SO_REUSEPORT, ON),
        O::V6Only(on) => (SOL_IPV6, libc::IPV6_V6ONLY, i32::from(*on).to_ne_bytes()),
        O::BindAddressNoPort => (SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, ON),
        O::FreeBind => (SOL_IP, libc::IP_FREEBIND, ON),
        O::Transparent => (SOL_IP, libc::IP_TRANSPARENT, ON),
        O::TransparentV6 => (SOL_IPV6, libc::IPV6_TRANSPARENT, ON),
        // IPOPT_NOOP
        O::IpOptions => (SOL_IP, libc::IP_OPTIONS, [1; 4]),
        O::Mark(mark) => (SOL_SOCKET, libc::SO_MARK, mark.to_ne_bytes()),
        O::FastOpenConnect => (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, ON),
        O::FastOpen(queue) => (IPPROTO_TCP, libc::TCP_FASTOPEN, queue.to_ne_bytes()),
        O::DontRoute => (SOL_SOCKET, libc::SO_DONTROUTE, ON),
        O::Md5Key(peer) => return Ok((IPPROTO_TCP, libc::TCP_MD5SIG, md5_key(*peer))),
        O::SourceRoute(via) => {
            // Type, length, the offset of the next entry, the entry, and padding.
            let route = [&[131, 7, 4][..], &via.octets(), &[0]].concat();
            return Ok((SOL_IP, libc::IP_OPTIONS, route));
        }
        O::RoutingHeader(via) => {
            // Next header, length in units of 8 bytes, type, segments left, last entry, flags, tag; then
            // the last segment, which the kernel fills in, and the first.
            let header = [0, 4, 4, 1, 1, 0, 0, 0];
            let segments = [[0; 16], via.octets()].concat();
            return Ok((SOL_IPV6, IPV6_RTHDR, [&header[..], &segments].concat()));
        }
        O::Other { level, name, value } => return Ok((*level, *name, value.clone())),
        O::BindToDevice(device) => {
            let value = device.as_bytes().to_vec();
            return Ok((SOL_SOCKET, libc::SO_BINDTODEVICE, value));
        }
        O::UnicastInterface(name) => (SOL_IP, IP_UNICAST_IF, index(name)?.to_be_bytes()),
        O::UnicastInterfaceV6(name) => {
            (SOL_IPV6, libc::IPV6_UNICAST_IF, index(name)?.to_be_bytes())
        }
        O::PacketInfoV6(name) => {
            let address = Ipv6Addr::UNSPECIFIED.octets();
            let value = [&address[..], &index(name)?.to_ne_bytes()].concat();
            return Ok((SOL_IPV6, libc::IPV6_PKTINFO, value));
        }
        O::ResetOnClose => {
            return Ok((SOL_SOCKET, libc::SO_LINGER, [ON, [0; 4]].concat()));
        }
    };
    Ok((level, name, value.to_vec()))
}

fn index(interface: &str) -> io::Result<u32> {
    Ok(if_nametoindex(interface)?)
}

/// `struct tcp_md5sig` with some key for an IPv4 peer.
fn md5_key(peer: SocketAddr) -> Vec<u8> {
    const ADDRESS: usize = 128;
    const MAX_KEY: usize = 80;
    const KEY: [u8; KEY_LENGTH as usize] = *b"secret";
    const KEY_LENGTH: u16 = 6;

    let SocketAddr::V4(peer) = peer else {
        return Vec::new();
    };
    let family = u16::try_from(libc::AF_INET).unwrap_or_default();
    let mut value = family.to_ne_bytes().to_vec();
    value.extend(peer.port().to_be_bytes());
    value.extend(peer.ip().octets());
    value.resize(ADDRESS, 0);
    // Flags, the length of a prefix, the key's length, an interface.
    value.extend([0, 0]);
    value.extend(KEY_LENGTH.to_ne_bytes());
    value.extend([0; 4]);
    value.extend(KEY);
    value.resize(ADDRESS + 8 + MAX_KEY, 0);
    value
}
