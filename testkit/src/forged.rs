//! Packets with a forged source address.

use std::{net::SocketAddr, os::fd::AsFd as _};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{actor::process::set_option, netns::Netns};

/// The offset of TCP's checksum.
const CHECKSUM: i32 = 16;

/// Sends a TCP SYN with the source `from`, which may be another host's address, to `to` out of
/// `netns`: IPv6 only. The kernel computes the checksum.
pub fn send_syn(netns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<()> {
    ensure!(
        from.is_ipv6() && to.is_ipv6(),
        "{from} and {to}: both have to be IPv6"
    );
    let mut segment = [0_u8; 20];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    // Five words of header; SYN; a window.
    segment[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    netns.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::TCP))?;
        let set = |name, value: i32| {
            set_option(socket.as_fd(), libc::SOL_IPV6, name, &value.to_ne_bytes())
        };
        set(libc::IPV6_TRANSPARENT, 1)?;
        set(libc::IPV6_CHECKSUM, CHECKSUM)?;
        socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
        let to = SocketAddr::new(to.ip(), 0);
        socket
            .send_to(&segment, &to.into())
            .context("cannot send")?;
        Ok(())
    })
}
