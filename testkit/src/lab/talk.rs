//! Dialling, and running commands.

use std::{
    net::SocketAddr,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Reply, Request},
    },
    command::output,
    dialler::outcome,
};

/// Time limit of `wait_until`.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// The server that responds when `actor` dials `to`: `remote:80`, a proxy with the original
/// destination that it got, `proxy:15001 for 10.2.0.9:80`, or the errno.
pub fn dial(actor: &Actor, to: &str) -> Result<String> {
    let (socket, outcome) = call(actor, to)?;
    actor.must(&Request::Close { socket })?;
    Ok(outcome)
}

/// The same; the socket stays open.
pub fn call(actor: &Actor, to: &str) -> Result<(Handle, String)> {
    let address: SocketAddr = to.parse().with_context(|| to.to_owned())?;
    let socket = actor.socket(Family::of(address), Protocol::Tcp)?;
    let outcome = match actor.call(&Request::Connect { socket, address })? {
        Reply::Error(errno) => errno,
        _ => match actor.call(&Request::ReceiveLine { socket })? {
            Reply::Data(line) => outcome(&line)?,
            Reply::Error(errno) => errno,
            reply => format!("{reply:?}"),
        },
    };
    Ok((socket, outcome))
}

/// Whether the server of a connection of [`call`] still responds.
pub fn echoes(actor: &Actor, socket: Handle) -> Result<bool> {
    let data = "are you there?\n".to_owned();
    if let Reply::Error(_) = actor.call(&Request::Send { socket, data })? {
        return Ok(false);
    }
    let reply = actor.call(&Request::ReceiveLine { socket })?;
    Ok(reply == Reply::Data("are you there?".to_owned()))
}

/// Sends one datagram; nothing waits for a response.
pub fn send_datagram(actor: &Actor, to: &str) -> Result<()> {
    let address: SocketAddr = to.parse().with_context(|| to.to_owned())?;
    let socket = actor.socket(Family::of(address), Protocol::Udp)?;
    let data = "hello".to_owned();
    actor.must(&Request::SendTo {
        socket,
        address,
        data,
    })?;
    actor.must(&Request::Close { socket }).map(drop)
}

/// Runs a command that must succeed, and returns its stderr.
pub fn stderr_of(command: &mut Command) -> Result<String> {
    let Output { status, stderr, .. } = output(command, "")?;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    ensure!(status.success(), "{command:?}: {status}: {stderr}");
    Ok(stderr)
}

/// Waits until `condition` holds; fails if it takes too long.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while !condition()? {
        ensure!(
            Instant::now() < deadline,
            "{what}: not within {WAIT_TIMEOUT:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
