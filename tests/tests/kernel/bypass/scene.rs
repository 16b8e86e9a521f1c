//! A world, and captures of what arrives at both sides.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Reply, Request, SocketOption},
    },
    capture::Capture,
    dialler::outcome,
    lab::wait_until,
    packet::{ACK, RST, SYN, TCP, Transport},
    scenario::address,
    users::{APP, ROOT},
    world::{Role, Setup, World},
};

use super::{defence::Defence, markers::Markers, outcome::Outcome};

/// `CAP_NET_ADMIN`
const CAP_NET_ADMIN: u32 = 12;
/// `CAP_NET_RAW`
const CAP_NET_RAW: u32 = 13;

/// A pod behind a defence, with captures.
pub(crate) struct Scene {
    pub(crate) world: World,
    markers: Markers,
    /// What the pod sends to itself.
    inside: Capture,
}

impl Scene {
    pub(crate) fn new(defence: Defence, setup: &Setup) -> Result<Self> {
        let world = World::new(defence.mechanism(), &defence.with(setup))?;
        Ok(Self {
            markers: Markers::new(&world)?,
            inside: Capture::start(world.pod(), "lo")?,
            world,
        })
    }

    /// Ends the connections of a case, and repairs what a case may have stopped.
    pub(crate) fn reset(&self) -> Result<()> {
        self.world.reset()
    }

    /// Forgets the packets of earlier cases.
    pub(crate) fn forget_packets(&self) -> Result<()> {
        self.markers.packets_at_peer()?;
        self.inside.take()?;
        Ok(())
    }

    pub(crate) fn app(&self) -> Result<&Actor> {
        self.world.actor(Role::App)
    }

    pub(crate) fn neighbour(&self) -> Result<&Actor> {
        self.world.actor(Role::Client)
    }

    /// An app with `CAP_NET_RAW`.
    pub(crate) fn raw_app(&self) -> Result<Actor> {
        self.app_with(&[CAP_NET_RAW])
    }

    /// An app with `CAP_NET_ADMIN` and `CAP_NET_RAW`.
    pub(crate) fn admin_app(&self) -> Result<Actor> {
        self.app_with(&[CAP_NET_RAW, CAP_NET_ADMIN])
    }

    fn app_with(&self, capabilities: &[u32]) -> Result<Actor> {
        let actor = self.world.start_in_pod("app", ROOT, "pod/Capable")?;
        actor.must(&Request::KeepCapabilities {
            uid: APP.uid,
            gid: APP.gid,
            capabilities: capabilities.to_vec(),
        })?;
        Ok(actor)
    }

    /// Dials from inside the pod.
    pub(crate) fn dial(&self, actor: &Actor, to: &str) -> Result<Outcome> {
        self.dial_with(actor, &[], to)
    }

    /// The same, by a socket with these options.
    pub(crate) fn dial_with(
        &self,
        actor: &Actor,
        options: &[SocketOption],
        to: &str,
    ) -> Result<Outcome> {
        let socket = actor.socket(Family::of(address(to)), Protocol::Tcp)?;
        for option in options {
            let option = option.clone();
            if let Reply::Error(errno) = actor.call(&Request::Set { socket, option })? {
                return Ok(Outcome::of_errno(errno));
            }
        }
        self.connect(actor, socket, address(to))
    }

    /// Connects a socket of the pod.
    pub(crate) fn connect(
        &self,
        actor: &Actor,
        socket: Handle,
        address: SocketAddr,
    ) -> Result<Outcome> {
        let reply = actor.call(&Request::Connect { socket, address })?;
        self.follow(actor, socket, reply)
    }

    /// The outcome of a connection of the pod, of which `reply` is the first result.
    pub(crate) fn follow(&self, actor: &Actor, socket: Handle, reply: Reply) -> Result<Outcome> {
        let reply = match reply {
            Reply::Error(errno) => Reply::Error(errno),
            _ => actor.call(&Request::ReceiveLine { socket })?,
        };
        self.outbound(reply)
    }

    /// The outcome of a connection of the pod that got this line, or this error.
    pub(crate) fn outbound(&self, reply: Reply) -> Result<Outcome> {
        let reached = reached(reply)?;
        Ok(match self.what_leaves()? {
            Some(what) if !is_remote(&reached) => Outcome::Leaves(what.into()),
            _ => of_server(reached),
        })
    }

    /// The same while the pod also sends to a client outside.
    pub(crate) fn outbound_beside_inbound(&self, reply: Reply) -> Result<Outcome> {
        let reached = reached(reply)?;
        let starts = self.packets_of_pod(|packet| packet.flags & (SYN | ACK) == SYN)?;
        Ok(if starts.is_empty() || is_remote(&reached) {
            of_server(reached)
        } else {
            Outcome::Leaves("SYN".into())
        })
    }

    /// The outcome of sending on a connection whose server echoes, such as the proxy.
    pub(crate) fn echo(&self, actor: &Actor, socket: Handle) -> Result<Outcome> {
        self.forget_packets()?;
        let data = "secret\n".to_owned();
        let echo = match actor.call(&Request::Send { socket, data })? {
            Reply::Error(errno) => Reply::Error(errno),
            _ => actor.call(&Request::ReceiveLine { socket })?,
        };
        Ok(match (self.leaving()?, echo) {
            (Outcome::NothingArrives, Reply::Error(errno)) => Outcome::of_errno(errno),
            (Outcome::NothingArrives, _) => Outcome::Proxy,
            (leaving, _) => leaving,
        })
    }

    /// The outcome of a dial from outside.
    pub(crate) fn dial_in(&self, to: &str) -> Result<Outcome> {
        let actor = self.neighbour()?;
        let address = address(to);
        let socket = actor.socket(Family::of(address), Protocol::Tcp)?;
        let reply = match actor.call(&Request::Connect { socket, address })? {
            Reply::Error(errno) => Reply::Error(errno),
            // A server that accepts sends its name: no response is no outcome.
            _ => actor.must(&Request::ReceiveLine { socket })?,
        };
        inbound(reply)
    }

    /// The kind of TCP packets that have reached the peer: those of a new connection, or data.
    fn what_leaves(&self) -> Result<Option<String>> {
        let matters = |packet: &Transport| {
            let starts = packet.flags & (SYN | ACK) == SYN;
            packet.protocol == TCP && (starts || packet.has_payload)
        };
        let packets = self.packets_of_pod(matters)?;
        let starts = packets.iter().any(|packet| packet.flags & SYN != 0);
        let data = packets.iter().any(|packet| packet.has_payload);
        Ok(match (starts, data) {
            (true, true) => Some("SYN with data".to_owned()),
            (true, false) => Some("SYN".to_owned()),
            (false, true) => Some("data".to_owned()),
            (false, false) => None,
        })
    }

    /// What leaves, if nothing else can happen.
    pub(crate) fn leaving(&self) -> Result<Outcome> {
        let what = self.what_leaves()?;
        Ok(what.map_or(Outcome::NothingArrives, |what| Outcome::Leaves(what.into())))
    }

    /// The packets that have reached the peer.
    pub(crate) fn packets_of_pod(
        &self,
        matches: impl Fn(&Transport) -> bool,
    ) -> Result<Vec<Transport>> {
        let mut packets = self.markers.packets_at_peer()?;
        packets.retain(matches);
        Ok(packets)
    }

    /// The outcome of a connection to `port` that the kernel makes later: with the proxy, it starts
    /// inside the pod.
    pub(crate) fn joining(&self, port: u16) -> Result<Outcome> {
        let is_start = |packet: &Transport| packet.flags & (SYN | ACK) == SYN;
        let is_join =
            |packet: &Transport| is_start(packet) && packet.ports.is_some_and(|(_, to)| to == port);
        let mut outcome = Outcome::NothingArrives;
        wait_until("a connection that the kernel makes", || {
            if !self.packets_of_pod(is_join)?.is_empty() {
                outcome = Outcome::Leaves("SYN".into());
            } else if self.inside.take()?.iter().any(is_start) {
                outcome = Outcome::Proxy;
            }
            Ok(outcome != Outcome::NothingArrives)
        })?;
        Ok(outcome)
    }

    /// What the pod responds to packets from outside while the proxy does not listen: a SYN-ACK is
    /// the app's.
    pub(crate) fn response_without_proxy(
        &self,
        send: impl FnOnce(&Actor) -> Result<()>,
    ) -> Result<Outcome> {
        self.world.stop_proxy()?;
        self.forget_packets()?;
        send(self.neighbour()?)?;
        let is_response = |packet: &Transport| {
            packet.protocol == TCP
                && (packet.flags & RST != 0 || packet.flags & (SYN | ACK) == SYN | ACK)
        };
        let mut packets = self.packets_of_pod(is_response)?;
        packets.extend(self.inside.take()?.into_iter().filter(is_response));
        Ok(match packets.first() {
            None => Outcome::NothingArrives,
            Some(packet) if packet.flags & RST != 0 => Outcome::Refused("RST".into()),
            Some(_) => Outcome::PastTheProxy("the app responds".into()),
        })
    }
}

fn is_remote(reached: &Result<String, String>) -> bool {
    reached
        .as_ref()
        .is_ok_and(|server| server.starts_with("remote"))
}

/// The outcome of a connection of the pod, by the server that responds.
fn of_server(reached: Result<String, String>) -> Outcome {
    if is_remote(&reached) {
        return Outcome::PastTheProxy("a connection".into());
    }
    match reached {
        Ok(server) if server.starts_with("proxy") => Outcome::Proxy,
        Ok(_) => Outcome::Inside,
        Err(errno) => Outcome::of_errno(errno),
    }
}

/// The server that has sent this line, or the errno.
fn reached(reply: Reply) -> Result<Result<String, String>> {
    Ok(match reply {
        Reply::Data(line) => Ok(outcome(&line)?),
        Reply::Error(errno) => Err(errno),
        reply => bail!("unexpected: {reply:?}"),
    })
}

/// The outcome of a connection from outside.
fn inbound(reply: Reply) -> Result<Outcome> {
    Ok(match reached(reply)? {
        Ok(server) if server.starts_with("proxy") => Outcome::Proxy,
        Ok(server) => Outcome::PastTheProxy(server.into()),
        Err(errno) => Outcome::of_errno(errno),
    })
}
