//! A pod and its peer, not captured yet, for the tests of attaching and detaching.
//!
//! ```text
//!  pod                                             peer
//!  app, server, proxy                              client, remote
//!  eth0 10.1.0.2, fd00:1::2 ────────────────────── eth0 10.1.0.1, fd00:1::1
//!                                                  lo   10.2.0.9, fd00:2::9
//! ```

mod killing;
mod stand_in;
mod talk;
mod traces;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
pub use killing::Killing;
pub use stand_in::stand_in;
pub use talk::{call, dial, echoes, send_datagram, stderr_of, wait_until};
pub use traces::{Traces, cookie, cookie_at};

use crate::{
    actor::{
        Actor,
        protocol::{Handle, Reply, Request},
    },
    cgroup::Cgroup,
    command::bounded,
    interceptor,
    janitor::{self, Task},
    kept::{self, SharedLoaded},
    machine::Exclusive,
    netns::Netns,
    topology,
    users::{APP, PROXY, ROOT},
    world::{Bind, serve},
};

/// The flags of a stock sidecar, both families captured.
pub const STOCK: &[&str] = &[
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
    "-i",
    "*",
    "--dual-stack",
];

/// The flags that make [`STOCK`] transparent.
pub const TPROXY: &[&str] = &["-m", "TPROXY"];

/// Connections of every kind that [`STOCK`] captures, and the server that responds: captured, and
/// not.
pub const CAPTURED: [(Caller, &str, &str, &str); 5] = [
    (
        Caller::App,
        "10.2.0.9:80",
        "proxy:15001 for 10.2.0.9:80",
        "remote:80",
    ),
    (
        Caller::App,
        "[fd00:2::9]:80",
        "proxy:15001 for [fd00:2::9]:80",
        "remote:80",
    ),
    (
        Caller::App,
        "[::ffff:10.2.0.9]:80",
        "proxy:15001 for 10.2.0.9:80",
        "remote:80",
    ),
    (
        Caller::Client,
        "10.1.0.2:8080",
        "proxy:15006 for 10.1.0.2:8080",
        "server:8080",
    ),
    (
        Caller::Client,
        "[fd00:1::2]:8080",
        "proxy:15006 for [fd00:1::2]:8080",
        "server:8080",
    ),
];

/// No leftovers, no changes.
pub const NOTHING: &[String] = &[];

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The pod's app.
    App,
    /// A client outside the pod.
    Client,
}

/// A pod and its peer. The pod is detached when dropped, or when the test process exits.
pub struct Lab {
    /// The app, as a client.
    pub app: Actor,
    /// The app, as a server of port 8080.
    pub server: Actor,
    /// The proxy. Initially it does not listen.
    pub proxy: Actor,
    /// A client outside the pod.
    pub client: Actor,
    /// The servers outside the pod, of ports 80 and 443 on all addresses.
    pub remote: Actor,
    /// The pod's network namespace.
    pub pod: Netns,
    /// The peer's.
    pub peer: Netns,
    /// The common cgroup of all of them.
    pub cgroup: Cgroup,
    cookie: u64,
    _shared: Option<SharedLoaded>,
}

impl Lab {
    /// Creates one that runs in parallel with other tests.
    pub fn new() -> Result<Self> {
        let shared = kept::shared()?;
        Self::make(Some(shared))
    }

    /// Creates one for a test that has the machine to itself.
    pub fn alone(_exclusive: &Exclusive) -> Result<Self> {
        Self::make(None)
    }

    fn make(shared: Option<SharedLoaded>) -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let pod = Netns::new("pod", Some(&cgroup.child("pod")?))?;
        let peer = Netns::new("peer", Some(&cgroup.child("peer")?))?;
        topology::connect(&pod, &peer)?;
        let start = |name, user, netns: &Netns, place: &str| {
            Actor::start(name, user, netns.namespace(), Some(&cgroup.child(place)?))
        };
        let lab = Self {
            app: start("app", APP, &pod, "pod/app")?,
            server: start("server", APP, &pod, "pod/app")?,
            proxy: start("proxy", PROXY, &pod, "pod/proxy")?,
            client: start("client", ROOT, &peer, "peer")?,
            remote: start("remote", ROOT, &peer, "peer")?,
            cookie: cookie(&pod)?,
            pod,
            peer,
            cgroup,
            _shared: shared,
        };
        serve(&lab.server, Bind::DUAL_WILDCARD, 8080)?;
        for port in [80, 443] {
            serve(&lab.remote, Bind::DUAL_WILDCARD, port)?;
        }
        janitor::register(&Task::Detach(lab.pod.path().to_owned()))?;
        Ok(lab)
    }

    /// Lets the proxy listen on the stock ports, on a wildcard of each family.
    pub fn start_proxy(&self) -> Result<Vec<Handle>> {
        self.listen([15001, 15006])
    }

    /// Lets the proxy listen on these ports, on a wildcard of each family.
    pub fn listen(&self, ports: impl IntoIterator<Item = u16>) -> Result<Vec<Handle>> {
        ports
            .into_iter()
            .flat_map(|port| Bind::BOTH_WILDCARDS.map(|bind| (bind, port)))
            .map(|(bind, port)| serve(&self.proxy, bind, port))
            .collect()
    }

    /// Lets the proxy close these listeners.
    pub fn close(&self, listeners: Vec<Handle>) -> Result<()> {
        listeners
            .into_iter()
            .try_for_each(|socket| self.proxy.must(&Request::Close { socket }).map(drop))
    }

    /// `interceptor VERB --netns POD`
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = bounded(interceptor::binary());
        command.arg(verb).arg("--netns").arg(self.pod.path());
        command
    }

    /// `interceptor attach` at the lab's cgroup.
    #[must_use]
    pub fn attach_command(&self, flags: &[&str]) -> Command {
        self.attach_command_at(self.cgroup.path(), flags)
    }

    /// `interceptor attach` at another cgroup.
    #[must_use]
    pub fn attach_command_at(&self, cgroup: &Path, flags: &[&str]) -> Command {
        let mut command = self.command("attach");
        command.arg("--cgroup").arg(cgroup).args(flags);
        command
    }

    /// Attaches the pod at the lab's cgroup and returns stderr.
    pub fn attach(&self, flags: &[&str]) -> Result<String> {
        stderr_of(&mut self.attach_command(flags))
    }

    /// Attaches the pod at another cgroup.
    pub fn attach_at(&self, cgroup: &Path, flags: &[&str]) -> Result<String> {
        stderr_of(&mut self.attach_command_at(cgroup, flags))
    }

    /// Detaches the pod and returns stderr.
    pub fn detach(&self) -> Result<String> {
        stderr_of(&mut self.command("detach"))
    }

    /// The actor that dials.
    #[must_use]
    pub const fn actor(&self, caller: Caller) -> &Actor {
        match caller {
            Caller::App => &self.app,
            Caller::Client => &self.client,
        }
    }

    /// The server that responds when `caller` dials `to`. The connection is closed when this
    /// returns.
    pub fn dial(&self, caller: Caller, to: &str) -> Result<String> {
        let actor = self.actor(caller);
        let before = self.open_sockets()?;
        let (socket, outcome) = call(actor, to)?;
        let name = actor.call(&Request::LocalName { socket })?;
        actor.must(&Request::Close { socket })?;
        if let Reply::Name(name) = name {
            self.wait_for_close(name.port(), &before)?;
        }
        Ok(outcome)
    }

    /// Waits until both ends in the pod are closed or in `TIME_WAIT`. Sockets that were open
    /// `before` are other connections: those of other hosts and to other destinations may have the
    /// same port.
    fn wait_for_close(&self, port: u16, before: &[OpenSocket]) -> Result<()> {
        let mut open = Vec::new();
        wait_until("a closed connection", || {
            open = self.open_sockets()?;
            open.retain(|socket| socket.has(port) && !before.contains(socket));
            Ok(open.is_empty())
        })
        .with_context(|| format!("open on port {port}: {open:?}"))
    }

    /// The sockets of the pod that are neither closed, nor in `TIME_WAIT`, nor listeners.
    fn open_sockets(&self) -> Result<Vec<OpenSocket>> {
        let mut open = Vec::new();
        for name in ["tcp", "tcp6"] {
            let table = fs::read_to_string(format!("/proc/{}/net/{name}", self.app.pid()))?;
            open.extend(table.lines().skip(1).filter_map(OpenSocket::parse));
        }
        Ok(open)
    }

    /// The servers that respond to each of [`CAPTURED`].
    pub fn dial_all(&self) -> Result<Vec<String>> {
        CAPTURED
            .iter()
            .map(|(caller, to, ..)| self.dial(*caller, to))
            .collect()
    }

    /// The network namespace's cookie.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The current state of everything that an attach changes.
    pub fn traces(&self) -> Result<Traces> {
        Traces::read(&self.pod, self.cgroup.path(), self.cookie)
    }

    /// The differences from `before`.
    pub fn changes_since(&self, before: &Traces) -> Result<Vec<String>> {
        Ok(before.changes_to(&self.traces()?))
    }

    /// Everything that is stored for the pod.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        traces::leftovers(self.pod.path(), self.cgroup.path(), self.cookie)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        match self.detach() {
            // The janitor no longer has to detach.
            Ok(_) => drop(janitor::register(&Task::Detached(
                self.pod.path().to_owned(),
            ))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

/// The results of [`Lab::dial_all`] when the pod is captured.
#[must_use]
pub fn all_captured() -> Vec<&'static str> {
    CAPTURED.iter().map(|(.., captured, _)| *captured).collect()
}

/// The results of [`Lab::dial_all`] when it is not captured.
#[must_use]
pub fn all_direct() -> Vec<&'static str> {
    CAPTURED.iter().map(|(.., direct)| *direct).collect()
}

/// An end of a connection, as in `/proc/net/tcp`: addresses in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
struct OpenSocket {
    local: String,
    remote: String,
}

impl OpenSocket {
    /// `None` for a listener, and for a connection that is closed or in `TIME_WAIT`.
    fn parse(line: &str) -> Option<Self> {
        const OVER: [&str; 3] = ["06", "07", "0A"];

        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let state = fields.next()?;
        (!OVER.contains(&state)).then_some(Self { local, remote })
    }

    fn has(&self, port: u16) -> bool {
        let port = format!(":{port:04X}");
        self.local.ends_with(&port) || self.remote.ends_with(&port)
    }
}
