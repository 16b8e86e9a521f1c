//! Queries over UDP in every mode, and all observations of them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};

use super::{Run, address};
use crate::{
    actor::{
        Actor,
        protocol::{
            Datagram, Family, Handle, IdentityReply, PacketInfo, Protocol, Reply, Request,
            SocketOption,
        },
    },
    world::Role,
};

/// The payload of a query.
const QUERY: &str = "who is there?";

/// A query to one server.
#[derive(Clone, Debug)]
pub struct Query {
    role: Role,
    to: SocketAddr,
    from: Option<SocketAddr>,
    family: Option<Family>,
    options: Vec<SocketOption>,
    sending: Sending,
    info: Option<PacketInfo>,
    records_peer: bool,
}

/// The mode of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// `connect(2)`, then `send(2)`, as glibc does.
    Connected,
    /// `sendto(2)`, as musl does.
    Unconnected,
}

impl Sending {
    /// Both modes.
    pub const BOTH: [Self; 2] = [Self::Connected, Self::Unconnected];
}

impl Query {
    /// `role` queries `to`.
    ///
    /// # Panics
    ///
    /// If `to` is not an address and a port.
    #[must_use]
    pub fn new(role: Role, to: &str, sending: Sending) -> Self {
        Self {
            role,
            to: address(to),
            from: None,
            family: None,
            options: Vec::new(),
            sending,
            info: None,
            records_peer: true,
        }
    }

    /// Does not record the peer that the server observes: behind iptables, an earlier use of the
    /// source port can change it.
    #[must_use]
    pub const fn without_peer(mut self) -> Self {
        self.records_peer = false;
        self
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

    /// Sends with `IP_PKTINFO` or `IPV6_PKTINFO`, by the family of `source`.
    #[must_use]
    pub fn with_info(mut self, interface: Option<&str>, source: IpAddr) -> Self {
        self.info = Some(PacketInfo {
            interface: interface.map(str::to_owned),
            source,
        });
        self
    }

    /// Uses a socket of another family than the server's.
    #[must_use]
    pub const fn on(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    pub(super) fn what(&self) -> String {
        format!("{}, {:?}", self.to, self.sending)
    }

    /// Queries and records all observations. Returns the socket.
    pub fn execute(&self, run: &mut Run<'_>) -> Result<Option<Handle>> {
        let actor = run.actor(self.role)?;
        let Some(socket) = self.open(run, actor)? else {
            return Ok(None);
        };
        self.execute_on(run, actor, socket)?;
        Ok(Some(socket))
    }

    /// Opens and binds a socket.
    pub fn open(&self, run: &mut Run<'_>, actor: &Actor) -> Result<Option<Handle>> {
        let family = self.family.unwrap_or_else(|| Family::of(self.to));
        let socket = actor.socket(family, Protocol::Udp)?;
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

    /// Like [`Query::execute`], with an existing socket.
    pub fn execute_on(&self, run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<()> {
        if !self.send(run, actor, socket)? {
            return Ok(());
        }
        record_names(run, actor, socket)?;
        for datagram in receive(run, actor, socket, false)? {
            run.record_sender(&datagram)?;
            if self.records_peer {
                run.record_text("server's peer", &read(&datagram)?.peer);
            }
        }
        Ok(())
    }

    /// Sends, and records the result.
    pub fn send(&self, run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<bool> {
        let (address, data) = (self.to, QUERY.to_owned());
        let request = match self.sending {
            Sending::Unconnected => self.request(socket, Some(address), data),
            Sending::Connected => {
                let reply = run.perform("connect", actor, &Request::Connect { socket, address })?;
                if let Reply::Error(errno) = reply {
                    run.set_outcome(&errno);
                    return Ok(false);
                }
                record_names(run, actor, socket)?;
                self.request(socket, None, data)
            }
        };
        let reply = run.perform("send", actor, &request)?;
        if let Reply::Error(errno) = &reply {
            run.set_outcome(errno);
        }
        Ok(!matches!(reply, Reply::Error(_)))
    }
}

impl Query {
    fn request(&self, socket: Handle, address: Option<SocketAddr>, data: String) -> Request {
        match (&self.info, address) {
            (Some(info), address) => Request::SendWith {
                socket,
                address,
                data,
                info: info.clone(),
            },
            (None, Some(address)) => Request::SendTo {
                socket,
                address,
                data,
            },
            (None, None) => Request::Send { socket, data },
        }
    }
}

fn record_names(run: &mut Run<'_>, actor: &Actor, socket: Handle) -> Result<()> {
    run.perform("local", actor, &Request::LocalName { socket })?;
    run.perform("peer", actor, &Request::PeerName { socket })?;
    Ok(())
}

/// Receives one datagram, or records the errno.
pub fn receive(
    run: &mut Run<'_>,
    actor: &Actor,
    socket: Handle,
    peek: bool,
) -> Result<Vec<Datagram>> {
    match actor.call(&Request::ReceiveFrom { socket, peek })? {
        Reply::Datagrams(datagrams) => return Ok(datagrams),
        Reply::Error(errno) if errno == "EAGAIN" => run.set_outcome("silence"),
        Reply::Error(errno) => run.set_outcome(&errno),
        reply => bail!("{reply:?}"),
    }
    Ok(Vec::new())
}

/// Parses a server's reply.
fn read(datagram: &Datagram) -> Result<IdentityReply> {
    serde_json::from_str(&datagram.data).with_context(|| datagram.data.clone())
}

impl Run<'_> {
    /// Records the server that replied, and its address.
    pub fn record_sender(&mut self, datagram: &Datagram) -> Result<()> {
        self.record_text("sender", &datagram.sender.to_string());
        let response = read(datagram)?;
        self.record("server's local", response.local);
        self.record("query", response.query);
        self.set_outcome(&response.server);
        Ok(())
    }
}
