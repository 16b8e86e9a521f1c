//! Connections in every mode, and all observations of them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::Run;
use crate::{
    actor::{
        Actor,
        protocol::{Family, Handle, Introduction, Protocol, Reply, Request, SocketOption},
    },
    world::Role,
};

/// The data of the fast-open modes.
const HELLO: &str = "hello\n";

/// A connection to make.
#[derive(Clone, Debug)]
pub struct Dial {
    role: Role,
    to: SocketAddr,
    from: Option<SocketAddr>,
    family: Option<Family>,
    protocol: Protocol,
    options: Vec<SocketOption>,
    mode: ConnectMode,
    is_through: bool,
}

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectMode {
    /// `connect(2)` blocks.
    Blocking,
    /// `connect(2)` returns at once, `poll(2)` waits.
    NonBlocking,
    /// `sendto(2)` with `MSG_FASTOPEN`.
    FastOpen,
    /// `TCP_FASTOPEN_CONNECT`, then `connect(2)`; another thread writes.
    FastOpenConnect,
}

impl Dial {
    /// `role` dials `to`, over TCP, blocking.
    ///
    /// # Panics
    ///
    /// If `to` is not an address and a port.
    #[must_use]
    pub fn new(role: Role, to: &str) -> Self {
        Self {
            role,
            to: address(to),
            from: None,
            family: None,
            protocol: Protocol::Tcp,
            options: Vec::new(),
            mode: ConnectMode::Blocking,
            is_through: false,
        }
    }

    /// Binds to `from` first.
    #[must_use]
    pub fn from(mut self, from: &str) -> Self {
        self.from = Some(address(from));
        self
    }

    /// Sets a socket option before binding.
    #[must_use]
    pub fn with(mut self, option: SocketOption) -> Self {
        self.options.push(option);
        self
    }

    /// Uses a socket of another family than the destination's.
    #[must_use]
    pub const fn on(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    /// Uses another protocol.
    #[must_use]
    pub const fn over(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Uses another mode.
    #[must_use]
    pub const fn mode(mut self, mode: ConnectMode) -> Self {
        self.mode = mode;
        self
    }

    /// The destination is beyond the pod, not the pod itself.
    #[must_use]
    pub const fn through(mut self) -> Self {
        self.is_through = true;
        self
    }

    pub(super) const fn to(&self) -> SocketAddr {
        self.to
    }

    /// Dials and records all observations. Returns the socket if a server responded.
    pub fn execute(&self, run: &mut Run<'_>) -> Result<Option<Handle>> {
        let actor = run.actor(self.role)?;
        let Some(socket) = self.open(run, actor)? else {
            return Ok(None);
        };
        self.execute_on(run, socket)
    }

    /// Like [`Dial::execute`], with an existing socket.
    pub fn execute_on(&self, run: &mut Run<'_>, socket: Handle) -> Result<Option<Handle>> {
        let actor = run.actor(self.role)?;
        self.execute_as(run, actor, socket)
    }

    /// Like [`Dial::execute_on`], with an actor that is not the world's.
    pub fn execute_as(
        &self,
        run: &mut Run<'_>,
        actor: &Actor,
        socket: Handle,
    ) -> Result<Option<Handle>> {
        if let Err(errno) = self.connect(run, actor, socket)? {
            run.set_outcome(&errno);
            run.record_names(actor, socket)?;
            return Ok(None);
        }
        run.record_names(actor, socket)?;
        let responded = self.receive_introduction(run, actor, socket)?;
        Ok(responded.then_some(socket))
    }

    /// Opens and binds a socket.
    pub fn open(&self, run: &mut Run<'_>, actor: &Actor) -> Result<Option<Handle>> {
        let family = self.family.unwrap_or_else(|| Family::of(self.to));
        let socket = match actor.call(&Request::Socket {
            family,
            protocol: self.protocol,
        })? {
            Reply::Socket(socket) => socket,
            reply => {
                run.record_reply("socket", &reply);
                return Ok(None);
            }
        };
        for option in &self.options {
            let option = option.clone();
            actor.must(&Request::Set { socket, option })?;
        }
        if let Some(address) = self.from {
            let reply = run.perform("bind", actor, &Request::Bind { socket, address })?;
            if let Reply::Error(errno) = reply {
                run.set_outcome(&errno);
                return Ok(None);
            }
        }
        Ok(Some(socket))
    }

    /// Connects; the inner error is the errno.
    fn connect(
        &self,
        run: &mut Run<'_>,
        actor: &Actor,
        socket: Handle,
    ) -> Result<Result<(), String>> {
        let address = self.to;
        let reply = match self.mode {
            ConnectMode::Blocking => {
                run.perform("connect", actor, &Request::Connect { socket, address })?
            }
            ConnectMode::NonBlocking => return connect_non_blocking(run, actor, socket, address),
            ConnectMode::FastOpen => {
                let data = HELLO.to_owned();
                let request = Request::FastOpenSend {
                    socket,
                    address,
                    data,
                };
                run.perform("sendto", actor, &request)?
            }
            ConnectMode::FastOpenConnect => return connect_fast(run, actor, socket, address),
        };
        Ok(errno(reply))
    }

    /// Records the server's introduction.
    fn receive_introduction(
        &self,
        run: &mut Run<'_>,
        actor: &Actor,
        socket: Handle,
    ) -> Result<bool> {
        let line = match actor.call(&Request::ReceiveLine { socket })? {
            Reply::Data(line) if line.is_empty() => {
                run.set_outcome("closed");
                return Ok(false);
            }
            Reply::Data(line) => line,
            reply => {
                run.record_reply("receive", &reply);
                run.set_outcome("silence");
                return Ok(false);
            }
        };
        let introduction: Introduction = serde_json::from_str(&line).context(line)?;
        run.record_introduction(&introduction, self.role.is_outside() && !self.is_through);
        self.record_echo(run, actor, socket)?;
        Ok(true)
    }

    /// The server must echo the data of the connect, or else data that is sent now.
    fn record_echo(&self, run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<()> {
        if matches!(self.mode, ConnectMode::Blocking | ConnectMode::NonBlocking) {
            let data = HELLO.to_owned();
            actor.must(&Request::Send { socket, data })?;
        }
        run.perform("echo", actor, &Request::ReceiveLine { socket })?;
        Ok(())
    }
}

fn connect_non_blocking(
    run: &mut Run<'_>,
    actor: &Actor,
    socket: Handle,
    address: SocketAddr,
) -> Result<Result<(), String>> {
    let request = Request::ConnectStart { socket, address };
    match run.perform("connect", actor, &request)? {
        Reply::Error(errno) if errno == "EINPROGRESS" => {}
        reply => return Ok(errno(reply)),
    }
    let reply = run.perform("poll", actor, &Request::ConnectFinish { socket })?;
    Ok(errno(reply))
}

fn connect_fast(
    run: &mut Run<'_>,
    actor: &Actor,
    socket: Handle,
    address: SocketAddr,
) -> Result<Result<(), String>> {
    let option = SocketOption::FastOpenConnect;
    actor.must(&Request::Set { socket, option })?;
    let reply = run.perform("connect", actor, &Request::Connect { socket, address })?;
    if let Err(errno) = errno(reply) {
        return Ok(Err(errno));
    }
    run.label("before the first write");
    run.record_names(actor, socket)?;
    run.label("");
    let data = HELLO.to_owned();
    let reply = run.perform("send", actor, &Request::SendFromThread { socket, data })?;
    Ok(errno(reply))
}

/// The errno in a reply.
fn errno(reply: Reply) -> Result<(), String> {
    match reply {
        // The errno of a blocking connect after the timeout of SO_SNDTIMEO.
        Reply::Error(errno) if errno == "EINPROGRESS" => Err("silence".to_owned()),
        Reply::Error(errno)
        | Reply::Polled {
            error: Some(errno), ..
        } => Err(errno),
        Reply::Polled { events, .. } if events.is_empty() => Err("silence".to_owned()),
        _ => Ok(()),
    }
}

/// Parses an address and a port.
///
/// # Panics
///
/// If `text` is none: the test is wrong.
#[must_use]
pub fn address(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}
