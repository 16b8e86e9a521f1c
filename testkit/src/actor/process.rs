//! The actor's side: a process that makes the system calls that it receives as requests.
//!
//! Each request is one line on stdin, each reply one line on stdout, both JSON. Between requests
//! the process serves its identity listeners.

pub(crate) mod options;

mod config;
mod datagrams;
mod dns;
mod identity;
mod passing;
mod raw;
mod ring;
mod sockets;
mod timeouts;
mod xdp;

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
pub use config::{ActorConfig, Namespace};
use dns::DnsServer;
use identity::Identity;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
pub(crate) use raw::{packet_socket, set_option};
use sockets::Sockets;
pub(crate) use sockets::above;

use super::protocol::{self, Reply, Request};

/// Enters the namespaces and runs the actor, until stdin is closed.
pub fn run(config: &ActorConfig) -> Result<()> {
    config.enter()?;
    run_here(&config.name)
}

/// Runs the actor in the process's current namespaces, until stdin is closed.
pub fn run_here(name: &str) -> Result<()> {
    send_reply(&Reply::Done)?;
    let mut actor = ActorProcess {
        name: name.to_owned(),
        sockets: Sockets::default(),
        identity: Identity::default(),
        dns: DnsServer::default(),
        input: Vec::new(),
    };
    while actor.turn()? {}
    Ok(())
}

struct ActorProcess {
    name: String,
    sockets: Sockets,
    identity: Identity,
    dns: DnsServer,
    /// Input from stdin that is not a complete line yet.
    input: Vec<u8>,
}

impl ActorProcess {
    /// Waits for input and handles it. False at the end of stdin.
    fn turn(&mut self) -> Result<bool> {
        let stdin = io::stdin();
        let ready = {
            let mut fds = vec![stdin.as_fd()];
            fds.extend(self.identity.fds());
            fds.extend(self.dns.fds());
            wait_readable(&fds)?
        };
        let (identity, dns) = ready[1..].split_at(self.identity.fds().count());
        self.identity.serve(identity, &self.name);
        self.dns.serve(dns);
        if ready[0] {
            return self.read_requests();
        }
        Ok(true)
    }

    fn read_requests(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let length = nix::unistd::read(io::stdin().as_fd(), &mut buffer)?;
        self.input.extend_from_slice(&buffer[..length]);
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let request = serde_json::from_slice(&line).context("request")?;
            send_reply(&self.execute(request))?;
        }
        Ok(length > 0)
    }

    fn execute(&mut self, request: Request) -> Reply {
        let done = match request {
            Request::Serve { socket } => self
                .sockets
                .take(socket)
                .and_then(|listener| self.identity.add(socket, listener))
                .map(|()| Reply::Done),
            Request::ServeDns { socket, zone } => self
                .sockets
                .take(socket)
                .and_then(|socket| self.dns.add(socket, zone))
                .map(|()| Reply::Done),
            Request::Queries => Ok(self.dns.queries()),
            Request::Close { socket } if self.identity.remove(socket) => Ok(Reply::Done),
            Request::SetUser { uid, gid } => config::become_user(uid, gid).map(|()| Reply::Done),
            Request::KeepCapabilities {
                uid,
                gid,
                capabilities,
            } => config::become_user_with(uid, gid, &capabilities).map(|()| Reply::Done),
            Request::SetSocketOwner { uid, gid } => {
                config::own_sockets_as(uid, gid);
                Ok(Reply::Done)
            }
            Request::OwnUserNamespace { with_network } => {
                config::own_user_namespace(with_network).map(|()| Reply::Done)
            }
            request => self.sockets.execute(request),
        };
        done.unwrap_or_else(|error| Reply::Error(sockets::errno_name(&error)))
    }
}

/// Which of `fds` have something to read, once one has.
fn wait_readable(fds: &[BorrowedFd<'_>]) -> Result<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    poll(&mut polled, PollTimeout::NONE)?;
    Ok(polled.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

fn send_reply(reply: &Reply) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, reply)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}
