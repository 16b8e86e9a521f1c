//! The agent's command line. Every option is also an environment variable, which the `DaemonSet` sets.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{
    install::{InstallOptions, split_list},
    policy::{
        index::{Index, LiveChanges},
        select::Selection,
    },
    telemetry::pods::Detail,
};
use crate::{
    agent_client,
    arguments::{log_filter, number, socket_address},
    settings::Strict,
};

/// Differs from istio-cni's ports (15014, 8000): both agents may run on a node during a migration.
const HTTP: SocketAddr = SocketAddr::new(EVERYWHERE, 15028);

/// Both families: kubelet probes the node's address, which may be IPv6.
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An hour.
const MAX_START_JITTER: u64 = 3_600_000;

/// The agent's options.
#[derive(Args, Clone, Debug)]
pub struct AgentOptions {
    /// Name of the node whose pods the agent captures
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// Kubeconfig for the API server [default: the pod's service account, else $KUBECONFIG or
    /// ~/.kube/config]
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

    /// Maximum random delay before the first request to the API server, in milliseconds: after an
    /// upgrade thousands of agents start at once
    #[arg(
        long,
        env = "START_JITTER",
        default_value_t = 100,
        value_parser = number(0..=MAX_START_JITTER),
        value_name = "MILLISECONDS"
    )]
    pub start_jitter: u64,

    /// Listen address of /startupz, /healthz, /readyz and /metrics
    #[arg(
        long,
        env = "HTTP_ADDRESS",
        default_value_t = HTTP,
        value_parser = socket_address,
        value_name = "IP:PORT"
    )]
    pub http_address: SocketAddr,

    /// Report the connections of each pod in /metrics: `interceptor_pod_connections_total`. About
    /// ten series for each pod of the node
    #[arg(long, env = "POD_METRICS", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub pod_metrics: bool,

    /// Port of the page and of the agent's API on 127.0.0.1, for `kubectl port-forward`; 0: none. Only
    /// root of the node can connect
    #[arg(
        long,
        env = "PAGE_PORT",
        default_value_t = agent_client::forward::PORT,
        value_parser = number(0..=u16::MAX),
        value_name = "PORT"
    )]
    pub page_port: u16,

    /// Log level (error, warn, info, debug, trace), or filters such as
    /// `info,interceptor::agent=debug`
    #[arg(
        long,
        env = "LOGGING_LEVEL",
        default_value = "info",
        value_parser = log_filter,
        value_name = "FILTER"
    )]
    pub log_level: String,

    /// Log as JSON, one object per line
    #[arg(long, env = "LOG_AS_JSON", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub log_as_json: bool,
}

impl AgentOptions {
    /// How much the metrics report.
    #[must_use]
    pub const fn detail(&self) -> Detail {
        if self.pod_metrics {
            Detail::Pods
        } else {
            Detail::Node
        }
    }

    /// An empty index with these options.
    #[must_use]
    pub fn index(&self) -> Index {
        let selection = Selection {
            excluded_namespaces: split_list(&self.install.exclude_namespaces).collect(),
            runtime_handlers: split_list(&self.pods.runtime_handlers).collect(),
            images: self.pods.image_repositories.clone(),
            strict: self.pods.strict,
        };
        let live = if self.pods.live_annotations {
            LiveChanges::Followed
        } else {
            LiveChanges::Ignored
        };
        Index::new(selection, live)
    }
}

/// The node's paths and its taint.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// Do not install the CNI plugin. Pods are then captured after their first process has started,
    /// not before
    #[arg(long, env = "NO_CNI")]
    pub no_cni: bool,

    /// The cgroup that contains all sockets of the pods [default: the root of the cgroup2 hierarchy].
    /// If the node is a container with its own cgroup namespace (kind, k3d), set it to /sys/fs/cgroup
    #[arg(long, env = "CGROUP_ROOT", value_name = "CGROUP")]
    pub cgroup_root: Option<PathBuf>,

    /// The cgroup that contains kubelet's pod cgroups [default: detected: kubepods.slice or kubepods,
    /// also nested as in kind]
    #[arg(long, env = "KUBEPODS_CGROUP", value_name = "CGROUP")]
    pub kubepods_cgroup: Option<PathBuf>,

    /// The node's proc file system
    #[arg(long, env = "HOST_PROC", default_value = "/proc", value_name = "DIR")]
    pub host_proc: PathBuf,

    /// Remove the taint from the node when the agent is ready to capture pods. Register nodes with the
    /// taint, so that no pod starts before that
    #[arg(long, env = "TAINT_ENABLED", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub taint: bool,

    /// Key of the taint
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
    /// Runtime handlers whose pods share the node's kernel. Pods of other handlers (gVisor, Kata)
    /// cannot be captured
    #[arg(long, env = "RUNTIME_CLASSES_ALLOW", value_delimiter = ',')]
    #[arg(default_value = "runc,crun,youki", value_name = "HANDLERS")]
    pub runtime_handlers: Vec<String>,

    /// Whether a pod of the mesh starts if its runtime handler is not in --runtime-handlers
    #[arg(
        long,
        env = "UNSUPPORTED_RUNTIME_POLICY",
        value_enum,
        default_value = "Fail"
    )]
    #[arg(value_name = "POLICY")]
    pub unsupported_runtime_policy: UnsupportedRuntimePolicy,

    /// Capture running pods that started before the agent or without a CNI call
    #[arg(long, env = "REPAIR_ENABLED", action = clap::ArgAction::Set, default_value_t = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub repair: bool,

    /// Close connections that were open when a running pod is captured, so that clients reconnect
    /// through the proxy
    #[arg(long, env = "CLOSE_CONNECTIONS", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub close_connections: bool,

    /// Apply annotation changes to running pods. A change that captures less is applied only if the
    /// namespace allows it (annotation interceptor.dev/allow-relaxation)
    #[arg(long, env = "LIVE_ANNOTATIONS", action = clap::ArgAction::Set, default_value_t = false)]
    #[arg(num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub live_annotations: bool,

    /// The strict mode of pods without the annotation interceptor.dev/strict: what may pass their
    /// interfaces only through the proxy or by an exemption of their settings
    #[arg(
        long,
        env = "STRICT_MODE",
        value_enum,
        default_value = "off",
        value_name = "MODE"
    )]
    pub strict: Strict,

    /// Repositories of the Interceptor image. A pod whose istio-init container uses one is captured
    /// with that container's arguments
    #[arg(
        long,
        env = "IMAGE_REPOSITORIES",
        value_delimiter = ',',
        default_value = "interceptor"
    )]
    #[arg(value_name = "REPOSITORIES")]
    pub image_repositories: Vec<String>,
}

/// Whether a pod of the mesh starts if its runtime does not share the node's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum UnsupportedRuntimePolicy {
    /// The pod does not start
    Fail,
    /// The pod starts uncaptured
    Ignore,
}
