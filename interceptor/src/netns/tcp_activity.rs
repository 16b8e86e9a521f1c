//! The TCP activity in a network namespace that is being detached.

use std::io;

use interceptor_ebpf::StandInRange;
use netlink_packet_sock_diag::{TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT};

use super::sock_diag::{SockDiag, TcpSocket};

/// The activity, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// No connection is open.
    None,
    /// All are established and accepted.
    Open,
    /// Handshakes that may have been captured are in progress, or connections wait for the proxy's
    /// `accept`.
    Connecting,
}

/// The activity in the calling thread's network namespace. The proxy listens on `ports`.
pub(crate) fn activity(ports: &[u16]) -> io::Result<Activity> {
    let sockets = SockDiag::open()?.list()?;
    let all = sockets.iter().map(|socket| activity_of(socket, ports));
    Ok(all.max().unwrap_or(Activity::None))
}

fn activity_of(socket: &TcpSocket, ports: &[u16]) -> Activity {
    let is_proxy_port = || ports.contains(&socket.local.port());
    let is_to_stand_in = || StandInRange::contains(socket.remote.ip().into());
    match socket.state {
        TCP_LISTEN if socket.queued > 0 && is_proxy_port() => Activity::Connecting,
        TCP_LISTEN => Activity::None,
        TCP_SYN_SENT if is_to_stand_in() => Activity::Connecting,
        TCP_SYN_RECV => Activity::Connecting,
        _ => Activity::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_waits_for_accept_counts_as_connecting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let _client = TcpStream::connect(to).unwrap();
        assert_eq!(activity(&[to.port()]).unwrap(), Activity::Connecting);
        let _accepted = listener.accept().unwrap();
        assert_ne!(activity(&[]).unwrap(), Activity::None);
    }
}
