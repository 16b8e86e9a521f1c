//! Pods of the mesh with a proxy, an app that connects, one that accepts, and a client outside.
//!
//! ```text
//!  pod                                                          node
//!  app: connects ──► proxy :15001 ──► Envoy: remote             remote :8000 to :8009
//!                                     small proxy: responds
//!  app: accepts :8080 :8081 ◄── Envoy, proxy :15006 ◄────────── client: connects
//! ```

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use interceptor_testkit::{
    node::{Manifest, Node, Pod},
    settings::Mode,
    sidecar::{
        Envoy, INBOUND_PORT, OUTBOUND_PORT,
        launch::{LaunchContext, Process},
    },
    users::{APP, PROXY, ROOT},
};
use serde_json::{Value, json};

use crate::{
    ledger::PodOutput,
    outside, patiently,
    traffic::{ConnectPlan, Expected, Job, ServePlan, Via, Worker},
};

/// How long connections of exited processes may take to close; then they are left to the kernel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The number of pods that stay.
pub(crate) const COUNT: usize = 8;
/// Of these, the number with an Envoy.
pub(crate) const WITH_ENVOY: usize = 2;

/// The app's port, and one that settings exclude from capture at times.
const APP_PORT: u16 = 8080;
pub(crate) const EXCLUDABLE_APP_PORT: u16 = 8081;

/// The number of destinations of a pod with the small proxy that have no server. They need more
/// stand-ins than a pod without them.
const PLACES: u16 = 2048;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProxyKind {
    /// The real Envoy, which forwards HTTP.
    Envoy,
    /// The small proxy, which responds itself.
    Small,
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Envoy => "Envoy",
            Self::Small => "small proxy",
        })
    }
}

/// A pod with its processes. Killed when dropped; see [`SoakPod::delete`].
pub(crate) struct SoakPod {
    // Dropped in this order.
    app: Worker,
    client: Worker,
    proxy: Option<RunningProxy>,
    server: Worker,
    pub(crate) pod: Pod,
    pub(crate) kind: ProxyKind,
    pub(crate) name: String,
}

/// A proxy's process.
enum RunningProxy {
    Envoy { _process: Process },
    Small { _worker: Worker },
}

impl SoakPod {
    /// Starts the processes of a pod whose sandbox exists, except its proxy. Of `held` connections that
    /// stay open, the app and the client have one half each.
    pub(crate) fn start(
        node: &Node,
        pod: Pod,
        kind: ProxyKind,
        held: usize,
        seed: u64,
        output: impl Fn(&str) -> PodOutput,
    ) -> Result<Self> {
        let starting = Starting {
            node,
            pod: &pod,
            kind,
            output: &output,
        };
        let (server, app, client) = (
            starting.server()?,
            starting.app(held - held / 2, seed)?,
            starting.client(held / 2, seed ^ 1)?,
        );
        Ok(Self {
            app,
            client,
            proxy: None,
            server,
            name: pod.manifest.name.clone(),
            pod,
            kind,
        })
    }

    /// Starts the proxy, and reports to the API that the containers run.
    pub(crate) fn start_proxy(&mut self, node: &Node, output: PodOutput) -> Result<()> {
        let cgroup = self.pod.cgroup().join("soak-proxy");
        fs::create_dir(&cgroup)?;
        let context = LaunchContext {
            netns: self.pod.netns()?,
            cgroup: &cgroup,
            user: PROXY,
        };
        self.proxy = Some(match self.kind {
            ProxyKind::Envoy => start_envoy(context)?,
            ProxyKind::Small => start_small_proxy(context, &self.name, output)?,
        });
        node.report_running(&self.pod)
    }

    /// Lets app and client connect.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.app.begin()?;
        self.client.begin()
    }

    /// Waits until all connections that stay open are open.
    pub(crate) fn wait_until_held(&self) -> Result<()> {
        self.app.wait_until_held()?;
        self.client.wait_until_held()
    }

    /// The app, which connects.
    pub(crate) const fn app(&mut self) -> &mut Worker {
        &mut self.app
    }

    /// The client outside.
    pub(crate) const fn client(&mut self) -> &mut Worker {
        &mut self.client
    }

    /// Who responds to the app, if the connection is captured.
    pub(crate) fn captured_server(&self, port: u16) -> String {
        expected(self.kind, &self.name, port).server
    }

    /// The address of its port [`EXCLUDABLE_APP_PORT`].
    pub(crate) fn excludable(&self) -> Result<SocketAddr> {
        let addresses = inward(&self.pod, EXCLUDABLE_APP_PORT)?;
        ensure!(!addresses.is_empty(), "{} has no address", self.name);
        Ok(addresses[0])
    }

    /// Lets app and client use their open connections once more and end.
    pub(crate) fn end(&mut self) {
        self.app.end();
        self.client.end();
    }

    /// The number of connections that were open at their end.
    pub(crate) fn ended(&self) -> Result<usize> {
        Ok(self.app.ended()? + self.client.ended()?)
    }

    /// Deletes the pod as kubelet does.
    pub(crate) fn delete(self, node: &Node) -> Result<()> {
        let Self {
            app,
            client,
            proxy,
            server,
            pod,
            ..
        } = self;
        drop((app, client, proxy, server));
        await_closed(&pod)?;
        node.delete(pod)
    }
}

/// A pod whose processes are being started.
struct Starting<'a> {
    node: &'a Node,
    pod: &'a Pod,
    kind: ProxyKind,
    output: &'a dyn Fn(&str) -> PodOutput,
}

impl Starting<'_> {
    fn name(&self) -> &str {
        &self.pod.manifest.name
    }

    fn server(&self) -> Result<Worker> {
        let job = Job::Serve(ServePlan {
            name: format!("app of {}", self.name()),
            ports: vec![APP_PORT, EXCLUDABLE_APP_PORT],
            via: Via::Headers,
        });
        self.start_inside("server", &job)
    }

    fn app(&self, held: usize, seed: u64) -> Result<Worker> {
        let job = Job::Connect(ConnectPlan {
            seed,
            to: outward(self.kind)?,
            held,
            expected: expected(self.kind, self.name(), OUTBOUND_PORT),
        });
        self.start_inside("app", &job)
    }

    fn client(&self, held: usize, seed: u64) -> Result<Worker> {
        let job = Job::Connect(ConnectPlan {
            seed,
            to: inward(self.pod, APP_PORT)?,
            held,
            expected: expected(self.kind, self.name(), INBOUND_PORT),
        });
        let cgroup = format!("system.slice/client-of-{}", self.name());
        let context = LaunchContext {
            netns: &self.node.host,
            cgroup: &self.node.cgroup.child(&cgroup)?,
            user: ROOT,
        };
        self.start("client", context, &job)
    }

    fn start_inside(&self, what: &str, job: &Job) -> Result<Worker> {
        let cgroup = self.pod.cgroup().join(format!("soak-{what}"));
        fs::create_dir(&cgroup)?;
        let context = LaunchContext {
            netns: self.pod.netns()?,
            cgroup: &cgroup,
            user: APP,
        };
        self.start(what, context, job)
    }

    fn start(&self, what: &str, context: LaunchContext<'_>, job: &Job) -> Result<Worker> {
        let name = format!("{what} of {}", self.name());
        Worker::start(&name, context, job, (self.output)(&name))
    }
}

/// Waits until the connections of exited processes are closed. Without its interface, a pod's network
/// namespace would exist until TCP has given up sending the last segments: up to some minutes.
fn await_closed(pod: &Pod) -> Result<()> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    while Instant::now() < deadline && pod.netns()?.enter(has_open_sockets)? {
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Whether the thread's network namespace has TCP sockets that are neither closed nor in `TIME_WAIT`.
fn has_open_sockets() -> Result<bool> {
    /// As `/proc/net/tcp` writes it.
    const TIME_WAIT: &str = "06";

    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        let states = table.lines().skip(1);
        let mut states = states.filter_map(|line| line.split_whitespace().nth(3));
        if states.any(|state| state != TIME_WAIT) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The ports of every proxy.
const PROXY_PORTS: [u16; 2] = [OUTBOUND_PORT, INBOUND_PORT];

fn start_envoy(context: LaunchContext<'_>) -> Result<RunningProxy> {
    let envoy = Envoy::new(1)?;
    let arguments = waiting_for_requests(envoy.arguments(Mode::Redirect))?;
    let mut process = Process::start(context, &envoy.binary, &arguments)?;
    let mut await_listeners =
        || process.await_listeners(context.netns, &PROXY_PORTS, envoy.listeners());
    patiently(&mut await_listeners)?;
    Ok(RunningProxy::Envoy { _process: process })
}

/// The command line of an Envoy that waits for the first bytes of a connection as long as the client. By
/// default it waits for 0.2 s; after that it forwards bytes without reading requests, and reports nothing.
fn waiting_for_requests(arguments: Vec<String>) -> Result<Vec<String>> {
    const TIMEOUT: &str = "listener_filters_timeout";

    let with_timeout = |argument: String| -> Result<String> {
        if !argument.contains(TIMEOUT) {
            return Ok(argument);
        }
        let mut configuration: Value = serde_json::from_str(&argument)?;
        let listeners = configuration["static_resources"]["listeners"].as_array_mut();
        let capturing = listeners.into_iter().flatten();
        for listener in capturing.filter(|listener| !listener[TIMEOUT].is_null()) {
            listener[TIMEOUT] = json!("60s");
        }
        Ok(configuration.to_string())
    };
    arguments.into_iter().map(with_timeout).collect()
}

fn start_small_proxy(
    context: LaunchContext<'_>,
    pod: &str,
    output: PodOutput,
) -> Result<RunningProxy> {
    let name = small_proxy(pod);
    let job = Job::Serve(ServePlan {
        name: name.clone(),
        ports: PROXY_PORTS.to_vec(),
        via: Via::Own,
    });
    let worker = Worker::start(&name, context, &job, output)?;
    Ok(RunningProxy::Small { _worker: worker })
}

/// The object of a pod whose IPv6 connections are captured, too.
pub(crate) fn manifest(node: &Node, name: &str) -> Manifest {
    let config = r#"{"proxyMetadata": {"ISTIO_DUAL_STACK": "true"}}"#;
    Manifest::of_mesh(name, &node.new_uid()).annotate("proxy.istio.io/config", config)
}

/// The app's destinations. The small proxy responds for all, so they need no server.
fn outward(kind: ProxyKind) -> Result<Vec<SocketAddr>> {
    let mut to = outside::destinations()?;
    if kind == ProxyKind::Small {
        to.extend((0..PLACES).map(|place| {
            let [high, low] = place.to_be_bytes();
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 128, high, low)), 80)
        }));
    }
    Ok(to)
}

fn inward(pod: &Pod, port: u16) -> Result<Vec<SocketAddr>> {
    let addresses = pod.addresses()?.into_iter();
    Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
}

fn expected(kind: ProxyKind, pod: &str, listener: u16) -> Expected {
    let server = match kind {
        ProxyKind::Small => small_proxy(pod),
        ProxyKind::Envoy if listener == OUTBOUND_PORT => outside::REMOTE.to_owned(),
        ProxyKind::Envoy => format!("app of {pod}"),
    };
    Expected { server, listener }
}

fn small_proxy(pod: &str) -> String {
    format!("small proxy of {pod}")
}
