//! Closing connections that a pod opened before it was captured: they would go on past the proxy for
//! as long as they live.

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

/// Closes those connections of an attached pod that would be captured if they were made now. Answers
/// how many there were. The proxy's own stay: what it has accepted meanwhile has been captured.
pub(in crate::agent) fn close_uncaptured(netns: &Netns, settings: &Settings) -> Result<u64> {
    let sockets = netns.run(|| Ok(SockDiag::open()?.list()?))?;
    let listening: HashSet<_> = sockets
        .iter()
        .filter(|socket| socket.listens)
        .map(|socket| socket.local.port())
        .collect();
    let mut passed = Vec::new();
    let is_others = |socket: &&TcpSocket| !settings.proxy_uids.as_slice().contains(&socket.uid);
    let open = sockets.iter().filter(|socket| !socket.listens);
    for socket in open.filter(is_others) {
        let question = question(socket, &listening);
        if matches!(explain(netns, &question)?.outcome, Outcome::Captured { .. }) {
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

/// A connection at a port that somebody listens on has come in.
fn question(socket: &TcpSocket, listening: &HashSet<u16>) -> Query {
    let (destination, direction) = if listening.contains(&socket.local.port()) {
        (socket.local, Direction::Inbound { interface: None })
    } else {
        let owner = Owner {
            uid: socket.uid,
            // sock_diag reports no GID. A user's own group mostly has the same number.
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
