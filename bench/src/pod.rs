//! A pod with its proxy, and a client outside it.
//!
//! ```text
//!  pod                                   peer
//!  app, proxy :15001 :15006              client, remote :80
//!  eth0 10.1.0.2 ─────────────────────── eth0 10.1.0.1, lo 10.2.0.9
//! ```

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use interceptor_testkit::{
    actor::User,
    cgroup::Cgroup,
    command::{bounded, run},
    interceptor,
    janitor::{self, Task},
    netns::Netns,
    rules,
    settings::Settings,
    topology,
    users::{APP, PROXY, ROOT},
};

use super::{
    Contestant,
    environment::cpus,
    load::{LoadReply, LoadRequest, Worker},
};

/// The proxy's ports: outbound and inbound.
pub(super) const PROXY_PORTS: [u16; 2] = [15001, 15006];

/// The direction of a connection, as seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the app.
    Outbound,
    /// From the client.
    Inbound,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// A pod and its peer. Everything is deleted when dropped, or when the process exits.
pub struct Pod {
    // Dropped in this order: detached, then the processes, the namespaces, and the cgroup.
    attached: Option<Attached>,
    app: Worker,
    client: Worker,
    proxy: Option<Worker>,
    netns: Netns,
    peer: Netns,
    cgroup: Cgroup,
    contestant: Contestant,
}

/// Detaches Interceptor from a pod when dropped.
struct Attached {
    netns: PathBuf,
    node: PathBuf,
}

impl Pod {
    /// Creates one with its interception, but starts no proxy.
    pub fn without_proxy(contestant: Contestant, settings: &Settings) -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let netns = Netns::new("pod", Some(&cgroup.child("pod")?))?;
        let peer = Netns::new("peer", Some(&cgroup.child("peer")?))?;
        topology::connect_v4(&netns, &peer)?;
        let start = |name: &str, user, netns: &Netns, place: &str| {
            Worker::start(name, user, netns, &cgroup.child(place)?, &[])
        };
        let mut pod = Self {
            attached: None,
            app: start("app", APP, &netns, "pod/app")?,
            client: start("client", ROOT, &peer, "peer")?,
            proxy: None,
            netns,
            peer,
            cgroup,
            contestant,
        };
        pod.intercept(settings)?;
        Ok(pod)
    }

    /// Creates one with our proxy, and verifies that the proxy gets the right connections.
    pub fn new(contestant: Contestant, settings: &Settings) -> Result<Self> {
        let mut pod = Self::without_proxy(contestant, settings)?;
        let place = pod.cgroup.child("pod/proxy")?;
        let proxy = Worker::start("proxy", PROXY, &pod.netns, &place, &PROXY_PORTS)?;
        pod.proxy = Some(proxy);
        pod.verify()?;
        Ok(pod)
    }

    /// One for each contestant, with its name.
    pub fn each(contestants: &[Contestant], settings: &Settings) -> Result<Vec<(String, Self)>> {
        contestants
            .iter()
            .map(|contestant| {
                let pod = Self::new(*contestant, settings)?;
                Ok((contestant.name().to_owned(), pod))
            })
            .collect()
    }

    fn intercept(&mut self, settings: &Settings) -> Result<()> {
        match self.contestant {
            Contestant::Direct => {}
            Contestant::Iptables => rules::apply(&self.netns, settings, false)?,
            Contestant::Interceptor => {
                janitor::register(&Task::Detach(self.netns.path().to_owned()))?;
                self.attached = Some(Attached {
                    netns: self.netns.path().to_owned(),
                    node: self.peer.path().to_owned(),
                });
                let cgroup = self.pod_cgroup()?;
                // As an agent does, from the network namespace with the veth's other end.
                self.peer
                    .enter(|| attach(self.netns.path(), &cgroup, settings))?;
            }
        }
        Ok(())
    }

    /// Detaches Interceptor.
    pub fn stop_intercepting(&mut self) {
        self.attached = None;
    }

    /// A process in the pod's namespace, but in a given cgroup.
    pub(super) fn worker_at(&self, user: User, cgroup: &Path) -> Result<Worker> {
        Worker::start("worker", user, &self.netns, cgroup, &[])
    }

    /// The common cgroup of the pod's processes.
    pub(super) fn pod_cgroup(&self) -> Result<PathBuf> {
        self.cgroup.child("pod")
    }

    /// The common cgroup of everything.
    pub(super) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its network namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The peer's network namespace.
    pub(super) const fn peer(&self) -> &Netns {
        &self.peer
    }

    /// The interception mechanism.
    #[must_use]
    pub const fn contestant(&self) -> Contestant {
        self.contestant
    }

    /// The client process of a direction.
    pub(super) const fn dialler(&self, direction: Direction) -> &Worker {
        match direction {
            Direction::Outbound => &self.app,
            Direction::Inbound => &self.client,
        }
    }

    /// The dialled address: without interception, the proxy's port at the pod's own address, so
    /// that the proxy gets the same client address. (For connections from and to localhost the
    /// kernel has cached routes; for a packet from within to an address of `eth0` it creates a
    /// route each time: `__mkroute_output`.)
    pub(super) fn destination(&self, direction: Direction) -> SocketAddr {
        let (ip, port) = match (self.contestant, direction) {
            (Contestant::Direct, Direction::Outbound) => ([10, 1, 0, 2], PROXY_PORTS[0]),
            (Contestant::Direct, Direction::Inbound) => ([10, 1, 0, 2], PROXY_PORTS[1]),
            (_, Direction::Outbound) => ([10, 2, 0, 9], 80),
            (_, Direction::Inbound) => ([10, 1, 0, 2], 8080),
        };
        (ip, port).into()
    }

    /// Sends a request to the client process of a direction.
    pub(super) fn call(&self, direction: Direction, request: &LoadRequest) -> Result<LoadReply> {
        self.dialler(direction).call(request)
    }

    /// Pins client and proxy to one processor: waiting for the other then costs no more than a
    /// context switch, always the same.
    pub(super) fn share_processor(&self) -> Result<()> {
        let (Some(proxy), Some(cpu)) = (&self.proxy, cpus()?.first().copied()) else {
            return Ok(());
        };
        proxy.call(&LoadRequest::Stay(cpu)).map(drop)
    }

    /// The CPU time of all its processes in seconds.
    pub(super) fn used(&self) -> Result<f64> {
        let proxy = self.proxy.as_ref().map_or(Ok(0.0), Worker::used)?;
        Ok(self.app.used()? + self.client.used()? + proxy)
    }

    /// The number of the pod's connections in conntrack.
    pub fn tracked(&self) -> Result<usize> {
        self.netns.enter(|| {
            let path = "/proc/sys/net/netfilter/nf_conntrack_count";
            Ok(fs::read_to_string(path)?.trim().parse()?)
        })
    }

    /// Verifies that the contestant does what it claims: the proxy gets connections, with their
    /// original destination if they are intercepted, and conntrack tracks them behind iptables and
    /// nowhere else.
    pub fn verify(&self) -> Result<()> {
        for (direction, port) in Direction::BOTH.into_iter().zip(PROXY_PORTS) {
            let to = self.destination(direction);
            let listener = match self.call(direction, &LoadRequest::Identify(to))? {
                LoadReply::Listener(listener) => listener,
                other => bail!("{other:?}"),
            };
            let original = match self.contestant {
                Contestant::Direct => "-".to_owned(),
                _ => to.to_string(),
            };
            let name = self.contestant;
            ensure!(
                listener == format!("{port} {original}"),
                "{name}: a client that dials {to} should reach the proxy's port {port} with {original}, but \
                 reaches {listener}"
            );
        }
        let (tracked, name) = (self.tracked()?, self.contestant);
        ensure!(
            (tracked > 0) == (name == Contestant::Iptables),
            "{name}: conntrack tracks {tracked} connections"
        );
        Ok(())
    }
}

/// The settings of all pods, except the policy: those of a stock sidecar in an IPv4 mesh.
#[must_use]
pub fn stock() -> Settings {
    Settings {
        dual_stack: false,
        ..Settings::default()
    }
}

/// `interceptor attach`
pub(super) fn attach(netns: &Path, cgroup: &Path, settings: &Settings) -> Result<()> {
    let mut command = bounded(interceptor::binary());
    command.arg("attach").arg("--netns").arg(netns);
    command.arg("--cgroup").arg(cgroup).args(settings.flags());
    run(&mut command, "").map(drop)
}

impl Drop for Attached {
    fn drop(&mut self) {
        match Netns::enter_at(&self.node, || interceptor::detach(&self.netns)) {
            // The janitor no longer has to detach.
            Ok(()) => drop(janitor::register(&Task::Detached(self.netns.clone()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
