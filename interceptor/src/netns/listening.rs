//! Who listens in a network namespace.
//!
//! `NETLINK_SOCK_DIAG` (`sock_diag(7)`) alone can be asked for listening sockets only: `/proc/net/tcp`
//! and `iter/tcp` walk the table of all connections of the machine as well, which takes milliseconds
//! even where there are none.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// `1 << TCP_LISTEN`
const LISTEN: u32 = 1 << 10;

/// `struct nlmsghdr` and `struct inet_diag_req_v2`
const REQUEST_SIZE: u32 = 16 + 56;
/// The size of what a dump answers with at once, at most.
const BUFFER_SIZE: usize = 32 * 1024;

/// The TCP ports that somebody listens on in the calling thread's network namespace. Fails where the
/// kernel cannot be asked (`CONFIG_INET_DIAG`).
pub fn tcp_ports() -> Result<Vec<u16>> {
    let mut ports = ports_of(libc::AF_INET)?;
    ports.extend(ports_of(libc::AF_INET6)?);
    Ok(ports)
}

fn ports_of(family: i32) -> Result<Vec<u16>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let request = request(u8::try_from(family)?, u8::try_from(libc::IPPROTO_TCP)?);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).context("cannot ask for listeners")?;
    let mut ports = Vec::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let size = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..size], &mut ports)? == Dump::Ended {
            return Ok(ports);
        }
    }
}

fn request(family: u8, protocol: u8) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(REQUEST_SIZE.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Number and sender are of no account; nor is what follows the states.
    request.extend([0; 8]);
    request.extend([family, protocol, 0, 0]);
    request.extend(LISTEN.to_ne_bytes());
    request.resize(REQUEST_SIZE as usize, 0);
    request
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    GoesOn,
    Ended,
}

/// Reads messages: `struct nlmsghdr` and `struct inet_diag_msg`, whose fifth and sixth byte are the
/// port.
fn read(mut messages: &[u8], ports: &mut Vec<u16>) -> Result<Dump> {
    while let Some((header, rest)) = messages.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        match (kind, rest) {
            (DONE, _) => return Ok(Dump::Ended),
            (ERROR, [a, b, c, d, ..]) => {
                let errno = -i32::from_ne_bytes([*a, *b, *c, *d]);
                bail!("cannot list the listeners: {}", Errno::from_raw(errno));
            }
            (BY_FAMILY, [_, _, _, _, high, low, ..]) => {
                ports.push(u16::from_be_bytes([*high, *low]));
            }
            _ => {}
        }
        let next = usize::try_from(length)?.next_multiple_of(4);
        messages = messages.get(next.max(header.len())..).unwrap_or_default();
    }
    Ok(Dump::GoesOn)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_found_and_connections_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp_ports().unwrap().contains(&port));
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let other = client.local_addr().unwrap().port();
        drop(listener);
        let now = tcp_ports().unwrap();
        assert!(!now.contains(&port) && !now.contains(&other));
    }
}
