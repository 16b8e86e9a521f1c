//! `SO_ORIGINAL_DST`, as a proxy reads it.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
};

use nix::sys::socket::{getsockopt, sockopt};

use crate::actor::protocol::Family;

/// The original destination of the connection of `socket`.
pub fn original_destination(socket: &impl AsFd, family: Family) -> nix::Result<SocketAddr> {
    match family {
        Family::V4 => getsockopt(socket, sockopt::OriginalDst).map(from_v4),
        Family::V6 => getsockopt(socket, sockopt::Ip6tOriginalDst).map(from_v6),
    }
}

fn from_v4(name: libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
    (ip, u16::from_be(name.sin_port)).into()
}

fn from_v6(name: libc::sockaddr_in6) -> SocketAddr {
    let ip = name.sin6_addr.s6_addr.into();
    SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into()
}
