//! The actors of a world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

use super::{Mechanism, World};
use crate::{
    actor::{
        Actor, User,
        protocol::{Family, Handle, Protocol, Request, SocketOption},
    },
    conntrack,
    netns::Netns,
    rules::DNS_PORT,
    settings::Mode,
    users::{APP, PROXY, PROXY_UID, ROOT, TRANSPARENT_PROXY},
};

/// The roles of a world's actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An app of the pod.
    App,
    /// An app of the pod that runs as root.
    Root,
    /// The proxy as a client, identified by its UID and its GID.
    Proxy,
    /// The proxy as a client, identified by its UID only.
    ProxyUid,
    /// The proxy as a client, identified by its GID only.
    ProxyGid,
    /// The app's servers, on `[::]`.
    AppServer,
    /// The proxy's listeners.
    ProxyServer,
    /// The listeners of a proxy that needs capabilities: root, in the proxy's group.
    RootProxyServer,
    /// The proxy's DNS agent.
    Agent,
    /// A client outside the pod.
    Client,
    /// The servers outside the pod, on `[::]`.
    Remote,
    /// A host on a bridge inside the pod.
    Inner,
    /// Its servers, on `[::]`.
    InnerServer,
}

impl Role {
    /// The number of roles.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::App,
        Self::Root,
        Self::Proxy,
        Self::ProxyUid,
        Self::ProxyGid,
        Self::AppServer,
        Self::ProxyServer,
        Self::RootProxyServer,
        Self::Agent,
        Self::Client,
        Self::Remote,
        Self::Inner,
        Self::InnerServer,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::App | Self::AppServer => "app",
            Self::Root => "root",
            Self::Proxy
            | Self::ProxyUid
            | Self::ProxyGid
            | Self::ProxyServer
            | Self::RootProxyServer => "proxy",
            Self::Agent => "agent",
            Self::Client => "client",
            Self::Remote => "remote",
            Self::Inner | Self::InnerServer => "inner",
        }
    }

    const fn user(self) -> User {
        match self {
            Self::App | Self::AppServer => APP,
            Self::Proxy | Self::ProxyServer | Self::Agent => PROXY,
            Self::ProxyUid => PROXY_UID,
            Self::ProxyGid | Self::RootProxyServer => TRANSPARENT_PROXY,
            Self::Root | Self::Client | Self::Remote | Self::Inner | Self::InnerServer => ROOT,
        }
    }

    /// Whether it is outside the pod.
    #[must_use]
    pub const fn is_outside(self) -> bool {
        matches!(
            self,
            Self::Client | Self::Remote | Self::Inner | Self::InnerServer
        )
    }
}

/// The address of a proxy's listener.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    ip: IpAddr,
    v6_only: bool,
}

impl Bind {
    /// `0.0.0.0`
    pub const V4_WILDCARD: Self = Self::to(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    /// `[::]`, which accepts IPv4 too.
    pub const DUAL_WILDCARD: Self = Self::to(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    /// `[::]`, for IPv6 only.
    pub const V6_WILDCARD: Self = Self {
        v6_only: true,
        ..Self::DUAL_WILDCARD
    };
    /// A wildcard listener for each family, as Envoy has.
    pub const BOTH_WILDCARDS: [Self; 2] = [Self::V4_WILDCARD, Self::V6_WILDCARD];

    /// A listener on one address.
    #[must_use]
    pub const fn to(ip: IpAddr) -> Self {
        Self { ip, v6_only: false }
    }
}

/// The app's ports.
const APP_PORTS: [u16; 11] = [
    22, 53, 80, 443, 8080, 9090, 15002, 15008, 15020, 15021, 15090,
];
/// The remote servers' ports.
const REMOTE_PORTS: [u16; 9] = [22, 53, 80, 443, 8080, 9090, 15006, 15008, 15020];

/// The ports of the UDP servers: DNS, and another.
const UDP_PORTS: [u16; 2] = [53, 5353];
/// The addresses of those outside the pod.
const REMOTE_SERVERS: [&str; 9] = [
    "10.1.0.1",
    "10.2.0.9",
    "10.4.0.1",
    "10.8.0.1",
    "10.9.0.1",
    "10.96.0.10",
    "fd00:1::1",
    "fd00:2::9",
    "fd00:96::10",
];
/// The addresses of those in the pod.
const OWN_SERVERS: [&str; 5] = ["127.0.0.1", "127.0.0.53", "10.1.0.2", "::1", "fd00:1::2"];
/// The addresses of the agent.
const LOCALHOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

impl World {
    /// The actor; started by the first call.
    pub fn actor(&self, role: Role) -> Result<&Actor> {
        let cell = &self.actors[role as usize];
        if cell.get().is_none() {
            let actor = self.start(role)?;
            drop(cell.set(actor));
        }
        cell.get().context("actor")
    }

    fn start(&self, role: Role) -> Result<Actor> {
        if role.is_outside() {
            let (netns, dir) = match role {
                Role::Inner | Role::InnerServer => (self.inner()?, "inner"),
                _ => (&self.peer, "peer"),
            };
            let cgroup = self.cgroup.child(dir)?;
            return Actor::start(role.name(), role.user(), netns.namespace(), Some(&cgroup));
        }
        let cgroup = format!("pod/{role:?}");
        self.start_in_pod(role.name(), role.user(), &cgroup)
    }

    /// Starts an additional actor in the pod, in a cgroup below the world's.
    pub fn start_in_pod(&self, name: &str, user: User, cgroup: &str) -> Result<Actor> {
        let cgroup = self.cgroup.child(cgroup)?;
        Actor::start(name, user, self.pod.namespace(), Some(&cgroup))
    }

    fn inner(&self) -> Result<&Netns> {
        self.inner
            .as_ref()
            .context("the world has no host inside the pod")
    }

    pub(super) fn serve(&self) -> Result<()> {
        for (role, ports) in [
            (Role::AppServer, APP_PORTS.as_slice()),
            (Role::Remote, REMOTE_PORTS.as_slice()),
            (Role::InnerServer, APP_PORTS.as_slice()),
        ] {
            if role == Role::InnerServer && self.inner.is_none() {
                continue;
            }
            for port in ports {
                serve(self.actor(role)?, Bind::DUAL_WILDCARD, *port)?;
            }
        }
        if self.setup.dns {
            self.serve_dns()?;
        }
        Ok(())
    }

    fn serve_dns(&self) -> Result<()> {
        let layout = self.setup.layout;
        for (role, servers) in [
            (Role::Remote, REMOTE_SERVERS.as_slice()),
            (Role::AppServer, OWN_SERVERS.as_slice()),
        ] {
            for server in servers {
                let ip: IpAddr = server.parse()?;
                let exists = if ip.is_ipv4() { layout.v4 } else { layout.v6 };
                if exists || ip.is_loopback() {
                    for port in UDP_PORTS {
                        serve_udp(self.actor(role)?, (ip, port).into())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the proxy's listeners, unless they exist.
    pub fn start_proxy(&self) -> Result<()> {
        if !self.listeners.borrow().is_empty() {
            return Ok(());
        }
        let settings = &self.setup.settings;
        for bind in self.setup.proxy {
            for port in [settings.proxy_port, settings.capture_port] {
                self.serve_as_proxy(*bind, port)?;
            }
        }
        self.serve_agent_dns()
    }

    fn serve_as_proxy(&self, bind: Bind, port: u16) -> Result<()> {
        let (role, options) = match self.setup.settings.mode {
            Mode::Redirect => (Role::ProxyServer, &[][..]),
            Mode::Tproxy if bind.ip.is_ipv4() => {
                (Role::RootProxyServer, &[SocketOption::Transparent][..])
            }
            Mode::Tproxy => (Role::RootProxyServer, &[SocketOption::TransparentV6][..]),
        };
        let listener = serve_with(self.actor(role)?, bind, port, options)?;
        self.listeners.borrow_mut().push((role, listener));
        Ok(())
    }

    /// The agent's DNS listeners.
    fn serve_agent_dns(&self) -> Result<()> {
        if !self.setup.dns {
            return Ok(());
        }
        let agent = self.actor(Role::Agent)?;
        for ip in LOCALHOSTS {
            for socket in [
                serve(agent, Bind::to(ip), DNS_PORT)?,
                serve_udp(agent, (ip, DNS_PORT).into())?,
            ] {
                self.listeners.borrow_mut().push((Role::Agent, socket));
            }
        }
        Ok(())
    }

    /// Closes the listeners of the proxy and its agent.
    pub fn stop_proxy(&self) -> Result<()> {
        for (role, socket) in self.listeners.take() {
            self.actor(role)?.must(&Request::Close { socket })?;
        }
        Ok(())
    }

    /// Closes all sockets of a scenario, and starts the proxy if it was stopped.
    pub fn reset(&self) -> Result<()> {
        for actor in self.actors.iter().filter_map(|cell| cell.get()) {
            actor.must(&Request::CloseAll)?;
        }
        // Behind iptables, connections from one port to two servers clash once both are redirected
        // to the proxy: conntrack keeps the first for two minutes after its close, and assigns
        // another port to the second.
        if self.mechanism == Mechanism::Iptables && self.old_connections.is_empty() {
            conntrack::forget(&self.pod)?;
        }
        self.start_proxy()
    }
}

/// Lets `actor` listen on `bind` and introduce itself to each client.
pub fn serve(actor: &Actor, bind: Bind, port: u16) -> Result<Handle> {
    serve_with(actor, bind, port, &[])
}

/// Lets `actor` reply to each datagram to `address`.
pub fn serve_udp(actor: &Actor, address: SocketAddr) -> Result<Handle> {
    let socket = actor.socket(Family::of(address), Protocol::Udp)?;
    actor.must(&Request::Bind { socket, address })?;
    actor.must(&Request::Serve { socket })?;
    Ok(socket)
}

/// Like [`serve`], with socket options set before binding.
pub fn serve_with(
    actor: &Actor,
    bind: Bind,
    port: u16,
    options: &[SocketOption],
) -> Result<Handle> {
    let address = SocketAddr::new(bind.ip, port);
    let socket = actor.socket(Family::of(address), Protocol::Tcp)?;
    let set = |option| actor.must(&Request::Set { socket, option });
    set(SocketOption::ReuseAddress)?;
    set(SocketOption::ReusePort)?;
    if address.is_ipv6() {
        set(SocketOption::V6Only(bind.v6_only))?;
    }
    for option in options {
        set(option.clone())?;
    }
    actor.must(&Request::Bind { socket, address })?;
    actor.must(&Request::Listen { socket })?;
    actor.must(&Request::Serve { socket })?;
    Ok(socket)
}
