//! The TCP ports with a listening socket in a network namespace.
//!
//! Only `NETLINK_SOCK_DIAG` (`sock_diag(7)`) can list only listening sockets. `/proc/net/tcp` and
//! `iter/tcp` also iterate over the machine's table of connections, which takes milliseconds even if
//! it is empty.

use anyhow::{Context as _, Result};
use netlink_packet_sock_diag::inet::StateFlags;

use super::sock_diag::SockDiag;

/// The ports in the calling thread's network namespace. Fails on a kernel without
/// `CONFIG_INET_DIAG`.
pub(crate) fn tcp_ports() -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    SockDiag::open()
        .and_then(|diag| {
            diag.dump(&StateFlags::LISTEN, &mut |socket| {
                ports.push(socket.socket_id.source_port);
            })
        })
        .context("cannot list the listening TCP sockets")?;
    Ok(ports)
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
