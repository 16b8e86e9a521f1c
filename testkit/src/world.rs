//! A pod and the world around it, created twice: once behind Istio's iptables rules, once behind
//! Interceptor.
//!
//! ```text
//!  pod                                             peer
//!  app, root, proxy ..., servers                   client, servers on every address
//!  eth0 10.1.0.2, 10.1.0.3, fd00:1::2, ::3 ─────── eth0 10.1.0.1, fd00:1::1
//!  eth1 10.3.0.2, fd00:3::2 ────────────────────── eth1 10.3.0.1, fd00:3::1
//!                                                  lo   10.2.0.9, 10.96.0.10, fd00:2::9, ...
//!  br0  172.17.0.1, fd00:17::1
//!    └─ inner, where it is wanted: 172.17.0.2, fd00:17::2
//! ```

mod actors;
mod layout;

use std::{
    cell::{OnceCell, RefCell},
    mem,
};

pub use actors::{Bind, Role, serve, serve_udp, serve_with};
use anyhow::{Context as _, Result};
pub use layout::Layout;

use crate::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol},
    },
    attachment::Attachment,
    cgroup::{self, Cgroup},
    conntrack,
    inner::put_inside,
    netns::Netns,
    rules,
    settings::Settings,
};

/// The mechanism of the interception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Istio's rules, in the kernel's own iptables.
    Iptables,
    /// Interceptor.
    Interceptor,
}

/// The cgroup that Interceptor is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachAt {
    /// The world's own: other tests do not run its programs.
    World,
    /// The root of the hierarchy, as without `--cgroup`.
    Root,
}

/// The configuration of a world.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The settings of the interception.
    pub settings: Settings,
    /// Addresses and routes.
    pub layout: Layout,
    /// Whether there is a host on a bridge inside the pod, for which the pod forwards.
    pub inner: bool,
    /// Settings of the pod's network namespace.
    pub sysctls: &'static [(&'static str, &'static str)],
    /// The addresses that the proxy listens on, on both its ports.
    pub proxy: &'static [Bind],
    /// Whether there are DNS servers, in the pod and outside, and the proxy's agent.
    pub dns: bool,
    /// Whether the proxy listens before the interception starts.
    pub proxy_first: bool,
    /// Where Interceptor is attached.
    pub attach_at: AttachAt,
    /// The roles that open a socket before the interception starts.
    pub old_sockets: &'static [Role],
    /// The roles that connect before the interception starts, and where.
    pub old_connections: &'static [(Role, &'static str)],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            layout: Layout::default(),
            inner: false,
            sysctls: &[],
            proxy: &Bind::BOTH_WILDCARDS,
            dns: false,
            proxy_first: false,
            attach_at: AttachAt::World,
            old_sockets: &[],
            old_connections: &[],
        }
    }
}

impl Setup {
    /// The default with other settings.
    #[must_use]
    pub fn with(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }
}

/// A pod, its interception, and its peer. Everything is deleted when dropped.
pub struct World {
    // Dropped in this order: detached, then the actors, their namespaces, and the cgroup.
    interception: Option<Attachment>,
    actors: [OnceCell<Actor>; Role::COUNT],
    listeners: RefCell<Vec<(Role, Handle)>>,
    old_sockets: Vec<Handle>,
    old_connections: Vec<Handle>,
    pod: Netns,
    peer: Netns,
    inner: Option<Netns>,
    cgroup: Cgroup,
    mechanism: Mechanism,
    setup: Setup,
}

impl World {
    /// Makes it.
    pub fn new(mechanism: Mechanism, setup: &Setup) -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let pod = Netns::new("pod", Some(&cgroup.child("pod")?))?;
        let peer = Netns::new("peer", Some(&cgroup.child("peer")?))?;
        let inner = if setup.inner {
            Some(Netns::new("inner", Some(&cgroup.child("inner")?))?)
        } else {
            None
        };
        let mut world = Self {
            interception: None,
            actors: Default::default(),
            listeners: RefCell::default(),
            old_sockets: Vec::new(),
            old_connections: Vec::new(),
            pod,
            peer,
            inner,
            cgroup,
            mechanism,
            setup: setup.clone(),
        };
        world.lay_out()?;
        world.serve()?;
        world.intercept()?;
        world.start_proxy()?;
        Ok(world)
    }

    fn lay_out(&self) -> Result<()> {
        self.setup.layout.apply(&self.pod, &self.peer)?;
        if let Some(inner) = &self.inner {
            put_inside(&self.pod, &self.peer, inner)?;
        }
        // Apps may serve any port.
        self.pod
            .sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
        for (name, value) in self.setup.sysctls {
            self.pod.sysctl(name, value)?;
        }
        Ok(())
    }

    /// Starts the interception, and the proxy before it if `proxy_first`.
    fn intercept(&mut self) -> Result<()> {
        if self.setup.proxy_first {
            self.start_proxy()?;
        }
        for role in self.setup.old_sockets {
            let socket = self.actor(*role)?.socket(Family::V4, Protocol::Tcp)?;
            self.old_sockets.push(socket);
        }
        for (role, to) in self.setup.old_connections {
            let socket = self.actor(*role)?.connect(to.parse()?)?;
            self.old_connections.push(socket);
        }
        let settings = &self.setup.settings;
        match self.mechanism {
            Mechanism::Iptables => {
                rules::apply(&self.pod, settings, self.is_ipv6_captured(settings))
            }
            Mechanism::Interceptor => {
                let cgroup = match self.setup.attach_at {
                    AttachAt::World => self.cgroup.path().to_owned(),
                    AttachAt::Root => cgroup::mount()?,
                };
                let (pod, node) = (self.pod.path(), self.peer.path());
                self.interception = Some(Attachment::new(pod, node, &cgroup, settings)?);
                Ok(())
            }
        }
    }

    /// Applies other settings, and restarts the proxy's listeners for them.
    pub fn set(&mut self, settings: &Settings) -> Result<()> {
        self.stop_proxy()?;
        let old = mem::replace(&mut self.setup.settings, settings.clone());
        match self.mechanism {
            Mechanism::Iptables => {
                let [old, new] =
                    [&old, settings].map(|settings| (settings, self.is_ipv6_captured(settings)));
                rules::replace(&self.pod, old, new)?;
                conntrack::forget(&self.pod)?;
            }
            Mechanism::Interceptor => {
                let interception = self.interception.as_ref();
                interception.context("detached")?.set(settings)?;
            }
        }
        self.start_proxy()
    }

    const fn is_ipv6_captured(&self, settings: &Settings) -> bool {
        self.setup.layout.is_ipv6_captured(settings.dual_stack)
    }

    /// Detaches Interceptor.
    pub fn detach(&mut self) {
        self.interception = None;
    }

    /// The mechanism of its interception.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Its configuration.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The IPv4 sockets that were opened before the interception started, in the order of
    /// [`Setup::old_sockets`].
    #[must_use]
    pub fn old_sockets(&self) -> &[Handle] {
        &self.old_sockets
    }

    /// The connections that were made before the interception started, in the order of
    /// [`Setup::old_connections`]; the servers' introductions are read.
    #[must_use]
    pub fn old_connections(&self) -> &[Handle] {
        &self.old_connections
    }

    /// The pod's network namespace.
    #[must_use]
    pub const fn pod(&self) -> &Netns {
        &self.pod
    }

    /// The peer's network namespace.
    #[must_use]
    pub const fn peer(&self) -> &Netns {
        &self.peer
    }

    /// The common cgroup of everything.
    #[must_use]
    pub const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}
