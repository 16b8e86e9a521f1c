//! Who listens in a network namespace.
//!
//! `NETLINK_SOCK_DIAG` (`sock_diag(7)`) alone can be asked for listening sockets only: `/proc/net/tcp`
//! and `iter/tcp` walk the table of all connections of the machine as well, which takes milliseconds
//! even where there are none.

use anyhow::{Context as _, Result};

use super::sock_diag::{LISTEN, SockDiag};

/// The TCP ports that somebody listens on in the calling thread's network namespace. Fails where the
/// kernel cannot be asked (`CONFIG_INET_DIAG`).
pub fn tcp_ports() -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    // Its fifth and sixth byte are the port.
    let mut take = |message: &[u8]| {
        if let [_, _, _, _, high, low, ..] = message {
            ports.push(u16::from_be_bytes([*high, *low]));
        }
    };
    SockDiag::open()
        .and_then(|diag| diag.dump(&[LISTEN], &mut take))
        .context("cannot list the listeners")?;
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
