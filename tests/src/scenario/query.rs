//! Asking by datagrams, and noting all that can be seen of it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::{Dial, Run};
use crate::{
    actor::Actor,
    agent::protocol::{Handle, Introduction, Protocol, Reply, Request},
    world::Who,
};

const QUESTION: &str = "who is there?\n";

/// A datagram to send, to be answered by one.
#[derive(Clone, Debug)]
pub struct Query {
    who: Who,
    dial: Dial,
    is_connected: bool,
}

impl Query {
    /// `who` asks `to` from a socket that is connected there.
    ///
    /// # Panics
    ///
    /// If `to` is not an address and a port.
    #[must_use]
    pub fn new(who: Who, to: &str) -> Self {
        Self {
            who,
            dial: Dial::new(who, to).over(Protocol::Udp),
            is_connected: true,
        }
    }

    /// From a socket that is not connected.
    #[must_use]
    pub const fn unconnected(mut self) -> Self {
        self.is_connected = false;
        self
    }

    /// Bound to `from` first.
    #[must_use]
    pub fn from(mut self, from: &str) -> Self {
        self.dial = self.dial.from(from);
        self
    }

    /// Asks and notes everything.
    pub fn go(&self, run: &mut Run<'_>) -> Result<()> {
        let actor = run.actor(self.who)?;
        let Some(socket) = self.dial.open(run, actor)? else {
            return Ok(());
        };
        let asked = self.ask(run, actor, socket)?;
        if self.is_connected || matches!(asked, Reply::Error(_)) {
            run.see_names(actor, socket)?;
        }
        if let Reply::Error(errno) = asked {
            run.set_outcome(&errno);
            return Ok(());
        }
        hear(run, actor, socket)
    }

    fn ask(&self, run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<Reply> {
        let address = self.dial.to();
        let data = QUESTION.to_owned();
        if !self.is_connected {
            let request = Request::SendTo {
                socket,
                address,
                data,
            };
            return run.try_out("sendto", actor, &request);
        }
        let reply = run.try_out("connect", actor, &Request::Connect { socket, address })?;
        if matches!(reply, Reply::Error(_)) {
            return Ok(reply);
        }
        run.try_out("send", actor, &Request::Send { socket, data })
    }
}

/// Notes who answers, from where.
fn hear(run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<()> {
    match actor.call(&Request::ReceiveFrom { socket })? {
        Reply::Datagram { from, data } => {
            run.see_reply("answer", &Reply::Name(from));
            let said: Introduction = serde_json::from_str(&data).context(data)?;
            run.see_introduction(&said, false);
        }
        Reply::Error(errno) if errno == "EAGAIN" => run.set_outcome("silence"),
        Reply::Error(errno) => run.set_outcome(&errno),
        reply => anyhow::bail!("not a datagram: {reply:?}"),
    }
    Ok(())
}

impl Query {
    /// Whom it asks.
    #[must_use]
    pub const fn to(&self) -> SocketAddr {
        self.dial.to()
    }
}
