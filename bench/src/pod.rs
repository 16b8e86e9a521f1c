//! A pod, one of those laid out alike, with its proxy and a client outside it.
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

/// Whether a connection leaves the pod or comes to it.
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

/// A pod and its peer. All of it goes when dropped, or when the process dies.
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

/// Takes Interceptor from a pod when dropped.
struct Attached {
    netns: PathBuf,
}

impl Pod {
    /// Makes one and puts the interception in force, but starts no proxy.
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

    /// Makes one whose proxy is ours and has proven that it gets what it is to get.
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
                });
                attach(
                    self.netns.path(),
                    self.cgroup.child("pod")?.as_path(),
                    settings,
                )?;
            }
        }
        Ok(())
    }

    /// Takes Interceptor away.
    pub fn stop_intercepting(&mut self) {
        self.attached = None;
    }

    /// A process in the pod's namespace, but in a cgroup of the test's choice.
    pub(super) fn worker_at(&self, user: User, cgroup: &Path) -> Result<Worker> {
        Worker::start("worker", user, &self.netns, cgroup, &[])
    }

    /// The cgroup of all that is in the pod.
    pub(super) fn pod_cgroup(&self) -> Result<PathBuf> {
        self.cgroup.child("pod")
    }

    /// The cgroup of everything.
    pub(super) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its network namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// That of whoever is outside.
    pub(super) const fn peer(&self) -> &Netns {
        &self.peer
    }

    /// What intercepts.
    #[must_use]
    pub const fn contestant(&self) -> Contestant {
        self.contestant
    }

    /// Who dials.
    pub(super) const fn dialler(&self, direction: Direction) -> &Worker {
        match direction {
            Direction::Outbound => &self.app,
            Direction::Inbound => &self.client,
        }
    }

    /// What is dialled: where nobody intercepts, the proxy's port at the pod's own address, so that
    /// the proxy sees the same client. (From and to localhost the kernel has its routes at hand, where
    /// it makes one for each packet that comes to an address of `eth0` from within:
    /// `__mkroute_output`.)
    pub(super) fn destination(&self, direction: Direction) -> SocketAddr {
        let (ip, port) = match (self.contestant, direction) {
            (Contestant::Direct, Direction::Outbound) => ([10, 1, 0, 2], PROXY_PORTS[0]),
            (Contestant::Direct, Direction::Inbound) => ([10, 1, 0, 2], PROXY_PORTS[1]),
            (_, Direction::Outbound) => ([10, 2, 0, 9], 80),
            (_, Direction::Inbound) => ([10, 1, 0, 2], 8080),
        };
        (ip, port).into()
    }

    /// Has whoever dials do something.
    pub(super) fn call(&self, direction: Direction, request: &LoadRequest) -> Result<LoadReply> {
        self.dialler(direction).call(request)
    }

    /// Puts client and proxy on one processor: who waits for the other then costs no more than to
    /// switch to it, which is the same every time.
    pub(super) fn share_processor(&self) -> Result<()> {
        let (Some(proxy), Some(cpu)) = (&self.proxy, cpus()?.first().copied()) else {
            return Ok(());
        };
        proxy.call(&LoadRequest::Stay(cpu)).map(drop)
    }

    /// Processor seconds that all its processes have used.
    pub(super) fn used(&self) -> Result<f64> {
        let proxy = self.proxy.as_ref().map_or(Ok(0.0), Worker::used)?;
        Ok(self.app.used()? + self.client.used()? + proxy)
    }

    /// How many connections conntrack follows in the pod.
    pub fn tracked(&self) -> Result<usize> {
        self.netns.enter(|| {
            let path = "/proc/sys/net/netfilter/nf_conntrack_count";
            Ok(fs::read_to_string(path)?.trim().parse()?)
        })
    }

    /// Proves that the contestant does what it claims: connections come to the proxy, with their
    /// original destination where they are intercepted, and conntrack follows them behind iptables
    /// and nowhere else.
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
                "{name}: whoever dials {to} should get the proxy's port {port}, told {original}, and \
                 reaches {listener}"
            );
        }
        let (tracked, name) = (self.tracked()?, self.contestant);
        ensure!(
            (tracked > 0) == (name == Contestant::Iptables),
            "{name}: conntrack follows {tracked} connections"
        );
        Ok(())
    }
}

/// What all pods are given, but for the policy: what a stock sidecar gets in a mesh of IPv4.
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
        match interceptor::detach(&self.netns) {
            // The janitor no longer has to.
            Ok(()) => drop(janitor::register(&Task::Detached(self.netns.clone()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
