//! Closes connections that a pod opened before it was captured: they bypass the proxy until they close.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{Owner, Transport};

use crate::{
    explain::{Direction, Outcome, Query, explain},
    netns::{
        Netns,
        sock_diag::{SockDiag, TcpSocket},
    },
    settings::Settings,
};

/// Closes those connections of an attached pod that would be captured if they were opened now, and
/// returns their number. The proxy's own connections stay: those that it accepted since the attach were
/// captured.
pub(in crate::agent) fn close_uncaptured(netns: &Netns, settings: &Settings) -> Result<u64> {
    let sockets = netns.run(|| Ok(SockDiag::open()?.list()?))?;
    let listening: HashSet<_> = sockets
        .iter()
        .filter(|socket| socket.listens)
        .map(|socket| socket.local.port())
        .collect();
    let mut passed = Vec::new();
    let is_of_an_app = |socket: &&TcpSocket| !settings.proxy_uids.as_slice().contains(&socket.uid);
    let open = sockets.iter().filter(|socket| !socket.listens);
    for socket in open.filter(is_of_an_app) {
        let query = query(socket, &listening);
        if matches!(explain(netns, &query)?.outcome, Outcome::Captured { .. }) {
            passed.push(socket);
        }
    }
    netns.run(|| {
        let diag = SockDiag::open()?;
        let mut closed = 0;
        for socket in &passed {
            let (local, remote) = (socket.local, socket.remote);
            diag.destroy(socket)
                .with_context(|| format!("cannot close the connection {local} - {remote}"))?;
            closed += 1;
        }
        Ok(closed)
    })
}

/// A connection on a port with a listener counts as inbound.
fn query(socket: &TcpSocket, listening: &HashSet<u16>) -> Query {
    let (destination, direction) = if listening.contains(&socket.local.port()) {
        (socket.local, Direction::Inbound { interface: None })
    } else {
        let owner = Owner {
            uid: socket.uid,
            // sock_diag reports no GID. The GID of a user's own group is usually the UID.
            gid: socket.uid,
        };
        let source = None;
        (socket.remote, Direction::Outbound { owner, source })
    };
    Query {
        transport: Transport::Tcp,
        destination,
        direction,
    }
}
