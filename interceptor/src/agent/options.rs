//! What the agent is told on its command line. Every option is an environment variable too, by which
//! a `DaemonSet` sets it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{
    index::{Index, LiveChanges},
    install::{InstallOptions, names},
    selection::Selection,
};

/// Neither of istio-cni's ports (15014, 8000): both agents may be on a node while one replaces the
/// other.
const HTTP: SocketAddr = SocketAddr::new(EVERYWHERE, 15028);

/// Both families: kubelet asks at the node's address, which may be an IPv6 one.
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The agent's options.
#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    /// The node whose pods are served, by its name in the API
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// How to reach the API server. By default as a pod does, or by $KUBECONFIG or ~/.kube/config
    #[arg(long, env = "INTERCEPTOR_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would replace the command's in --help"
    )]
    pub node: NodeOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would replace the command's in --help"
    )]
    pub pods: PodOptions,

    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would replace the command's in --help"
    )]
    pub install: InstallOptions,

    /// How long to wait at most before the API server is asked for the first time, in milliseconds:
    /// after an upgrade thousands of agents start at once
    #[arg(
        long,
        env = "START_JITTER",
        default_value_t = 100,
        value_name = "MILLISECONDS"
    )]
    pub start_jitter: u64,

    /// Where /startupz, /healthz, /readyz and /metrics are served
    #[arg(long, env = "HTTP_ADDRESS", default_value_t = HTTP, value_name = "IP:PORT")]
    pub http_address: SocketAddr,

    /// What is logged: a level (error, warn, info, debug, trace), or filters such as
    /// `info,interceptor::agent=debug`
    #[arg(
        long,
        env = "LOGGING_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_level: String,

    /// Log JSON, one object a line
    #[arg(long, env = "LOG_AS_JSON", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub log_as_json: bool,
}

impl AgentOptions {
    /// The node's pods, of which none is known yet.
    #[must_use]
    pub fn index(&self) -> Index {
        let selection = Selection {
            excluded_namespaces: names(&self.install.exclude_namespaces).collect(),
            runtime_handlers: names(&self.pods.runtime_handlers).collect(),
            images: self.pods.image_repositories.clone(),
        };
        let live = if self.pods.live_annotations {
            LiveChanges::Followed
        } else {
            LiveChanges::Ignored
        };
        Index::new(selection, live)
    }
}

/// Where things are on this node.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// Do not install the CNI plugin. Pods are then captured once their first process runs, not
    /// before
    #[arg(long, env = "NO_CNI")]
    pub no_cni: bool,

    /// The cgroup below which every socket of the pods is. By default the hierarchy's root, which is
    /// right but where the node is a container with a cgroup namespace of its own (kind, k3d): there
    /// it is /sys/fs/cgroup
    #[arg(long, env = "CGROUP_ROOT", value_name = "CGROUP")]
    pub cgroup_root: Option<PathBuf>,

    /// The cgroup that kubelet has the pods' below. By default it is looked for: kubepods.slice or
    /// kubepods, also nested as in kind
    #[arg(long, env = "KUBEPODS_CGROUP", value_name = "CGROUP")]
    pub kubepods_cgroup: Option<PathBuf>,

    /// The processes of the node, as proc(5) shows them
    #[arg(long, env = "HOST_PROC", default_value = "/proc", value_name = "DIR")]
    pub host_proc: PathBuf,

    /// Take the taint off the node when pods can be captured there. Nodes are made with it, so that
    /// no pod starts on them before
    #[arg(long, env = "TAINT_ENABLED", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub taint: bool,

    /// The taint's key
    #[arg(
        long,
        env = "TAINT_KEY",
        default_value = "interceptor.dev/not-ready",
        value_name = "KEY"
    )]
    pub taint_key: String,
}

/// Which pods are captured, and how.
#[derive(Args, Clone, Debug)]
pub struct PodOptions {
    /// The runtime handlers whose pods share this node's kernel. Pods of others (gVisor, Kata) cannot
    /// be captured from here
    #[arg(long, env = "RUNTIME_CLASSES_ALLOW", value_delimiter = ',')]
    #[arg(default_value = "runc,crun,youki", value_name = "HANDLERS")]
    pub runtime_handlers: Vec<String>,

    /// What becomes of a pod of the mesh that cannot be captured from here
    #[arg(
        long,
        env = "UNSUPPORTED_RUNTIME",
        value_enum,
        default_value = "refuse"
    )]
    #[arg(value_name = "WHAT")]
    pub unsupported_runtime: Unsupported,

    /// Capture pods that were there before the agent, or that no CNI call was made for
    #[arg(long, env = "REPAIR_ENABLED", action = clap::ArgAction::Set, default_value_t = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub repair: bool,

    /// Close connections that were open when a running pod was captured, so that they come again,
    /// through the proxy
    #[arg(long, env = "CLOSE_CONNECTIONS", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub close_connections: bool,

    /// Follow annotations that change while a pod runs: what captures more at once, what captures
    /// less only where the namespace allows it
    #[arg(long, env = "LIVE_ANNOTATIONS", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub live_annotations: bool,

    /// Repositories of our image: a pod whose istio-init container runs one is captured as that
    /// container's arguments say
    #[arg(
        long,
        env = "IMAGE_REPOSITORIES",
        value_delimiter = ',',
        default_value = "interceptor"
    )]
    #[arg(value_name = "REPOSITORIES")]
    pub image_repositories: Vec<String>,
}

/// What becomes of a pod whose runtime brings its own kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unsupported {
    /// It does not start: nothing of it would be captured.
    Refuse,
    /// It starts, uncaptured.
    Skip,
}
