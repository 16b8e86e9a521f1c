//! What TCP does in a network namespace while it is being detached.

use std::io;

use interceptor_ebpf::StandInRange;
use netlink_packet_sock_diag::{TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT};

use super::sock_diag::{SockDiag, TcpSocket};

/// What is going on, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// No connection is open.
    None,
    /// Some are open, and accepted.
    Open,
    /// Some are being made that may have been captured, or wait to be accepted by the proxy.
    UnderWay,
}

/// What the connections of the calling thread's network namespace are at. `ports` are those that the
/// proxy listens on.
pub fn activity(ports: &[u16]) -> io::Result<Activity> {
    let sockets = SockDiag::open()?.list()?;
    let all = sockets.iter().map(|socket| activity_of(socket, ports));
    Ok(all.max().unwrap_or(Activity::None))
}

fn activity_of(socket: &TcpSocket, ports: &[u16]) -> Activity {
    let is_proxys = || ports.contains(&socket.local.port());
    let is_to_stand_in = || StandInRange::contains(socket.remote.ip().into());
    match socket.state {
        TCP_LISTEN if socket.queued > 0 && is_proxys() => Activity::UnderWay,
        TCP_LISTEN => Activity::None,
        TCP_SYN_SENT if is_to_stand_in() => Activity::UnderWay,
        TCP_SYN_RECV => Activity::UnderWay,
        _ => Activity::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_waits_at_the_proxys_port_is_under_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let _client = TcpStream::connect(to).unwrap();
        assert_eq!(activity(&[to.port()]).unwrap(), Activity::UnderWay);
        let _accepted = listener.accept().unwrap();
        assert_ne!(activity(&[]).unwrap(), Activity::None);
    }
}
