//! The namespaces, the processes in them, and the interception.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;

use super::{
    BINARY,
    builtin::{self, INBOUND_PORT, OUTBOUND_PORT},
    client::{ClientView, read_lines, send_http, send_http_at_once, send_line},
    envoy::{self, Envoy},
    launch::{LaunchContext, Process},
};
use crate::{
    actor::{Actor, User},
    attachment::Attachment,
    cgroup::Cgroup,
    command::own_binary,
    kept::{self, SharedLoaded},
    netns::Netns,
    rules,
    settings::{Mode, Settings},
    topology,
    users::{APP, PROXY, ROOT, TRANSPARENT_PROXY},
    world::Mechanism,
};

/// The app's ports: a captured and an excluded one.
const APP_PORTS: [u16; 2] = [8080, 15020];
/// The remote server's ports.
const REMOTE_PORTS: [u16; 1] = [80];

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SceneClient {
    /// An app of the pod.
    App,
    /// An app of the pod that runs as root.
    Root,
    /// The proxy's user.
    Proxy,
    /// A client outside the pod.
    Client,
}

/// The proxy of a scene.
#[derive(Clone, Debug)]
pub enum Proxy {
    /// The small built-in one.
    Builtin,
    /// The real Envoy.
    Envoy(Envoy),
}

/// A pod and its outside. Everything is deleted when dropped, or when the process exits.
pub struct Scene {
    // Dropped in this order: detached, then the programs, their namespaces, and the cgroup.
    interception: Option<Attachment>,
    proxy: Option<Process>,
    /// The app, if it runs, and the remote server.
    servers: Vec<Process>,
    clients: [Actor; 4],
    pod: Netns,
    outside: Netns,
    cgroup: Cgroup,
    settings: Settings,
    _shared: SharedLoaded,
}

impl Scene {
    /// Creates one with an app and a remote server, without an interception or a proxy.
    pub fn new() -> Result<Self> {
        Self::with(Settings::default())
    }

    /// The same, for an interception with other settings.
    pub fn with(settings: Settings) -> Result<Self> {
        let shared = kept::shared()?;
        let cgroup = Cgroup::new()?;
        let pod = Netns::new("pod", Some(&cgroup.child("pod")?))?;
        let outside = Netns::new("outside", Some(&cgroup.child("outside")?))?;
        lay_out(&pod, &outside)?;
        let client = |name: &str, user, netns: &Netns, context: &str| {
            let cgroup = cgroup.child(&format!("{context}/{name}"))?;
            Actor::start(name, user, netns.namespace(), Some(&cgroup))
        };
        Ok(Self {
            interception: None,
            proxy: None,
            servers: vec![
                serve("app", APP, &pod, &cgroup.child("pod/server")?, &APP_PORTS)?,
                serve(
                    "remote",
                    ROOT,
                    &outside,
                    &cgroup.child("outside/server")?,
                    &REMOTE_PORTS,
                )?,
            ],
            clients: [
                client("app", APP, &pod, "pod")?,
                client("root", ROOT, &pod, "pod")?,
                client("proxy", PROXY, &pod, "pod")?,
                client("client", ROOT, &outside, "outside")?,
            ],
            pod,
            outside,
            cgroup,
            settings,
            _shared: shared,
        })
    }

    /// Starts the interception.
    pub fn intercept(&mut self, mechanism: Mechanism) -> Result<()> {
        let settings = &self.settings;
        match mechanism {
            Mechanism::Iptables => rules::apply(&self.pod, settings, true),
            Mechanism::Interceptor => {
                let (pod, node) = (self.pod.path(), self.outside.path());
                let cgroup = self.cgroup.path();
                self.interception = Some(Attachment::new(pod, node, cgroup, settings)?);
                Ok(())
            }
        }
    }

    /// Starts a proxy; it listens when this returns.
    pub fn start_proxy(&mut self, proxy: &Proxy) -> Result<()> {
        let mode = self.settings.mode;
        let (binary, arguments, listeners) = match proxy {
            Proxy::Builtin => (own_binary(BINARY)?, builtin::arguments(mode), 2),
            Proxy::Envoy(envoy) => {
                let arguments = envoy.arguments(mode);
                (envoy.binary.clone(), arguments, envoy.listeners())
            }
        };
        let context = LaunchContext {
            netns: &self.pod,
            cgroup: &self.cgroup.child("pod/sidecar")?,
            user: match mode {
                Mode::Redirect => PROXY,
                Mode::Tproxy => TRANSPARENT_PROXY,
            },
        };
        let mut process = Process::start(context, &binary, &arguments)?;
        process.await_listeners(&self.pod, &[OUTBOUND_PORT, INBOUND_PORT], listeners)?;
        self.proxy = Some(process);
        Ok(())
    }

    /// Kills the proxy.
    pub fn kill_proxy(&mut self) {
        self.proxy = None;
    }

    /// Kills the app.
    pub fn kill_app(&mut self) {
        self.servers.remove(0);
    }

    /// The pod's network namespace.
    pub const fn pod(&self) -> &Netns {
        &self.pod
    }

    /// The network namespace of its peers.
    pub const fn outside(&self) -> &Netns {
        &self.outside
    }

    /// `client` sends `request`, which may be empty, to `to`, and reads lines of the response.
    pub fn lines(
        &self,
        client: SceneClient,
        to: SocketAddr,
        request: &str,
        count: usize,
    ) -> Result<Vec<String>> {
        read_lines(self.actor(client), to, request, count)
    }

    /// `client` sends an HTTP request to `to`.
    pub fn send_http(&self, client: SceneClient, to: SocketAddr) -> Result<ClientView> {
        send_http(self.actor(client), to)
    }

    /// `client` makes `count` connections to `to`, and sends an HTTP request through each.
    pub fn send_http_at_once(
        &self,
        client: SceneClient,
        to: SocketAddr,
        count: usize,
    ) -> Result<Vec<ClientView>> {
        send_http_at_once(self.actor(client), to, count)
    }

    /// Sets the pod's range of ephemeral ports.
    pub fn set_port_range(&self, range: &str) -> Result<()> {
        self.pod.sysctl("net.ipv4.ip_local_port_range", range)
    }

    /// `client` sends a line that is not HTTP to `to`.
    pub fn send_line(&self, client: SceneClient, to: SocketAddr) -> Result<ClientView> {
        send_line(self.actor(client), to)
    }

    /// The number of connections that each of Envoy's workers has accepted on a port.
    pub fn connections_by_worker(&self, port: u16) -> Result<Vec<u32>> {
        self.pod.enter(|| envoy::connections_by_worker(port))
    }

    const fn actor(&self, client: SceneClient) -> &Actor {
        &self.clients[client as usize]
    }
}

fn lay_out(pod: &Netns, outside: &Netns) -> Result<()> {
    topology::connect(pod, outside)?;
    // Clients connect from other ports: a transparent proxy's connection that had a client's address
    // and another client's port would be the same connection to the kernel.
    pod.sysctl("net.ipv4.ip_local_port_range", "20000 29999")
}

fn serve(name: &str, user: User, netns: &Netns, cgroup: &Path, ports: &[u16]) -> Result<Process> {
    let context = LaunchContext {
        netns,
        cgroup,
        user,
    };
    let arguments: Vec<_> = ["server".to_owned(), name.to_owned()]
        .into_iter()
        .chain(ports.iter().map(u16::to_string))
        .collect();
    let mut process = Process::start(context, &own_binary(BINARY)?, &arguments)?;
    process.await_listeners(netns, ports, 1)?;
    Ok(process)
}
