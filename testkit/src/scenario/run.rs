//! One scenario in one world.

use std::net::SocketAddr;

use anyhow::Result;

use super::Dial;
use crate::{
    actor::{
        Actor,
        protocol::{Handle, Introduction, Level, Reply, Request},
    },
    settings::Mode,
    world::{Mechanism, Role, World},
};

/// The kernel's default range of ephemeral ports.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// A world in which a scenario runs, and the observations.
pub struct Run<'w> {
    world: &'w World,
    pub(super) observations: Vec<(String, String)>,
    pub(super) surprises: Vec<String>,
    ephemeral: Vec<u16>,
    label: String,
    outcome: String,
}

impl<'w> Run<'w> {
    /// No observations yet.
    #[must_use]
    pub const fn new(world: &'w World) -> Self {
        Self {
            world,
            observations: Vec::new(),
            surprises: Vec::new(),
            ephemeral: Vec::new(),
            label: String::new(),
            outcome: String::new(),
        }
    }

    /// The world.
    #[must_use]
    pub const fn world(&self) -> &'w World {
        self.world
    }

    /// One of its actors.
    pub fn actor(&self, role: Role) -> Result<&'w Actor> {
        self.world.actor(role)
    }

    /// Labels all further observations.
    pub fn label(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// Records an observation.
    pub fn record(&mut self, what: &str, value: impl Into<String>) {
        self.observations
            .push((format!("{} {what}", self.label), value.into()));
    }

    /// Records a reply, and returns whether it is not an error.
    pub fn record_reply(&mut self, what: &str, reply: &Reply) -> bool {
        let value = match reply {
            Reply::Done | Reply::Socket(_) => "ok".to_owned(),
            Reply::Name(address) => self.name(*address),
            Reply::Data(data) => data.clone(),
            Reply::Datagrams(datagrams) => format!("{} datagrams", datagrams.len()),
            Reply::Polled { events, error } => format!("{events} {error:?}"),
            Reply::Original { address, length } => {
                format!("{} in {length} bytes", self.name(*address))
            }
            Reply::Queries { udp, tcp } => format!("{udp} over UDP, {tcp} over TCP"),
            Reply::Error(errno) => errno.clone(),
        };
        self.record(what, value);
        !matches!(reply, Reply::Error(_))
    }

    /// Sends a request to `actor` and records the reply.
    pub fn perform(&mut self, what: &str, actor: &Actor, request: &Request) -> Result<Reply> {
        let reply = actor.call(request)?;
        self.record_reply(what, &reply);
        Ok(reply)
    }

    /// Dials, records all observations, and returns the socket if a server responded.
    pub fn dial(&mut self, role: Role, to: &str) -> Result<Option<Handle>> {
        Dial::new(role, to).execute(self)
    }

    /// Records both names of a socket and both its original destinations.
    pub fn record_names(&mut self, actor: &Actor, socket: Handle) -> Result<()> {
        self.perform("local", actor, &Request::LocalName { socket })?;
        self.perform("peer", actor, &Request::PeerName { socket })?;
        self.record_original(actor, socket)
    }

    /// Records `SO_ORIGINAL_DST` at both levels.
    pub fn record_original(&mut self, actor: &Actor, socket: Handle) -> Result<()> {
        for (what, level, length) in [
            (
                "original at SOL_IP",
                Level::Ip,
                size_of::<libc::sockaddr_in>(),
            ),
            (
                "original at SOL_IPV6",
                Level::Ipv6,
                size_of::<libc::sockaddr_in6>(),
            ),
        ] {
            let request = Request::OriginalDestination {
                socket,
                level,
                length,
            };
            self.perform(what, actor, &request)?;
        }
        Ok(())
    }

    /// Records a server's introduction. `from_outside`: the connection came into the pod.
    pub(super) fn record_introduction(&mut self, introduction: &Introduction, from_outside: bool) {
        self.set_outcome(&introduction.server);
        for (what, name) in [
            ("server's peer", &introduction.peer),
            ("server's original at SOL_IP", &introduction.original_v4),
            ("server's original at SOL_IPV6", &introduction.original_v6),
        ] {
            self.record_text(what, name);
        }
        let local = if from_outside && self.is_permitted_local_name(introduction) {
            "the permitted one".to_owned()
        } else {
            self.text(&introduction.local)
        };
        self.record("server's local", local);
    }

    /// The first entry of the list of known differences: the local name of an accepted inbound
    /// socket is the destination of REDIRECT behind iptables, and the destination that the client
    /// dialled behind Interceptor.
    fn is_permitted_local_name(&self, introduction: &Introduction) -> bool {
        let settings = &self.world.setup().settings;
        let ports = match settings.mode {
            // TPROXY rewrites nothing; -k's rerouted packets are redirected all the same, even
            // those that TPROXY has assigned to a socket.
            Mode::Tproxy if settings.rerouted_interfaces.is_empty() => &[settings.proxy_port][..],
            _ => &[settings.proxy_port, settings.capture_port][..],
        };
        let is_proxy = ports
            .iter()
            .any(|port| introduction.server == format!("proxy:{port}"));
        // Without an original destination it was not redirected.
        let originals = [&introduction.original_v4, &introduction.original_v6];
        let is_known = originals
            .iter()
            .any(|name| name.parse::<SocketAddr>().is_ok());
        let (true, true, Ok(local)) =
            (is_proxy, is_known, introduction.local.parse::<SocketAddr>())
        else {
            return false;
        };
        let canonical = SocketAddr::new(local.ip().to_canonical(), local.port());
        // A link-local address keeps its scope.
        let names = [canonical.to_string(), local.to_string()];
        let is_dialled = names.iter().any(|name| originals.contains(&name));
        match self.world.mechanism() {
            Mechanism::Iptables => is_dialled || ports.contains(&local.port()),
            Mechanism::Interceptor => is_dialled,
        }
    }

    /// The outcome of the last dial.
    #[must_use]
    pub fn outcome(&self) -> &str {
        &self.outcome
    }

    /// Records the outcome of a dial.
    pub fn set_outcome(&mut self, outcome: &str) {
        outcome.clone_into(&mut self.outcome);
        self.record("outcome", outcome);
    }

    /// Both worlds must have the outcome `expected`, so that they are not equal only because
    /// nothing works.
    pub fn expect_outcome(&mut self, expected: &str) {
        if self.outcome != expected {
            let found = &self.outcome;
            self.surprises
                .push(format!("expected {expected}, found {found}"));
        }
    }

    /// Like [`Run::expect_outcome`], for any condition.
    pub fn expect(&mut self, what: &str, holds: bool) {
        if !holds {
            self.surprises.push(format!("violated: {what}"));
        }
    }

    /// Records an address or an errno.
    pub fn record_text(&mut self, what: &str, text: &str) {
        let text = self.text(text);
        self.record(what, text);
    }

    /// An address or an errno, as text.
    fn text(&mut self, text: &str) -> String {
        match text.parse() {
            Ok(address) => self.name(address),
            Err(_) => text.to_owned(),
        }
    }

    /// An address as text. A port that the kernel chose is replaced by its order of appearance, so
    /// that the same port has the same name in all observations.
    fn name(&mut self, address: SocketAddr) -> String {
        let port = address.port();
        if !EPHEMERAL.contains(&port) {
            return address.to_string();
        }
        let known = self.ephemeral.iter().position(|other| *other == port);
        let number = known.unwrap_or_else(|| {
            self.ephemeral.push(port);
            self.ephemeral.len() - 1
        });
        format!("{}:ephemeral {number}", address.ip())
    }
}
