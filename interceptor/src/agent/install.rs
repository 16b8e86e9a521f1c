//! Installs the CNI plugin on the node: its binary, and its entry in the network configuration.
//!
//! One pass ([`once`]) corrects what differs. A pass can be killed at any point, and the next one
//! completes it. [`keep`] repeats passes until the agent exits. Of other programs' files, only the list
//! that contains our entry is changed, and files are replaced atomically.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cni::{
        PLUGIN,
        conf::{AgentPods, FailurePolicy, PluginSettings},
        conflist::{self, Shape},
        files::{
            CniDirs, InstallError, atomic_file, binary,
            conf_dir::{ConfDir, ConfFile},
        },
        protocol::SOCKET,
    },
    host::paths,
    pod_name::PodName,
};

mod istio_cni;
mod reconcile;
mod watch;

pub use istio_cni::IstioCni;
pub use reconcile::{InstallState, at_rest, keep};

/// The default file name of a stand-alone network. Last in order, so that no runtime uses it as the pod
/// network; Multus calls it by its name.
const ALONE: &str = "YYY-interceptor-cni.conf";

/// The installation and the settings of the CNI plugin. Option names follow istio-cni's chart.
#[derive(Args, Clone, Debug)]
pub struct InstallOptions {
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "its text would replace the command's in --help"
    )]
    pub dirs: CniDirs,

    /// File name of the CNI configuration. If empty, the file that container runtimes use: the first
    /// valid one
    #[arg(long, env = "CNI_CONF_FILE_NAME", value_name = "NAME")]
    pub cni_conf_file_name: Option<String>,

    /// Add the plugin to the end of the pod network's plugin list. With false, create a separate
    /// network, which Multus calls
    #[arg(
        long,
        env = "CHAINED",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub chained: bool,

    /// Namespaces whose pods are never captured, and start without the agent
    #[arg(
        long,
        env = "EXCLUDE_NAMESPACES",
        value_delimiter = ',',
        default_value = "kube-system",
        value_name = "NAMESPACES"
    )]
    pub exclude_namespaces: Vec<String>,

    /// Install the plugin and capture pods even if istio-cni is in the network configuration or has
    /// redirected a pod already. Both would then capture the same pods
    #[arg(long, env = "ALLOW_ISTIO_CNI")]
    pub allow_istio_cni: bool,

    /// Whether a pod starts if no agent responds to the plugin, which alone cannot determine whether
    /// the pod is in the mesh
    #[arg(
        long,
        env = "FAILURE_POLICY",
        value_enum,
        default_value = "Fail",
        value_name = "POLICY"
    )]
    pub failure_policy: FailurePolicy,

    /// Timeout of the plugin's request to the agent, in seconds
    #[arg(
        long,
        env = "CNI_WAIT_SECONDS",
        default_value_t = 60,
        value_name = "SECONDS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=220))]
    pub cni_wait_seconds: u32,

    /// The plugin's log file, as a path on the host
    #[arg(long, env = "CNI_LOG_FILE", value_name = "FILE")]
    pub cni_log_file: Option<PathBuf>,

    /// The agent's socket for the plugin. Must be the same path in this process and on the host
    #[arg(long, env = "INTERCEPTOR_SOCKET", default_value = SOCKET, value_name = "FILE")]
    pub socket: PathBuf,

    /// The agent's own pod name; all of the agent's pods start without a request to it
    #[arg(
        long,
        env = "POD_NAME",
        requires = "pod_namespace",
        value_name = "NAME"
    )]
    pub pod_name: Option<String>,

    /// Namespace of the agent's own pod
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Service account of the agent's own pod. By its deletion the agent detects that it is being
    /// uninstalled
    #[arg(
        long,
        env = "SERVICE_ACCOUNT",
        requires = "pod_namespace",
        value_name = "NAME"
    )]
    pub service_account: Option<String>,
}

impl InstallOptions {
    /// The plugin's settings.
    #[must_use]
    pub fn settings(&self) -> PluginSettings {
        PluginSettings {
            socket: self.socket.clone(),
            exclude_namespaces: split_list(&self.exclude_namespaces).collect(),
            agent_pods: self.own_pod().as_ref().map(AgentPods::like),
            failure_policy: self.failure_policy,
            wait_seconds: self.cni_wait_seconds,
            log_file: self.cni_log_file.clone(),
            conf_dir: paths::on_host(&self.dirs.cni_conf_dir),
            uninstalled: false,
        }
    }

    fn own_pod(&self) -> Option<PodName> {
        Some(PodName {
            namespace: self.pod_namespace.clone()?,
            name: self.pod_name.clone()?,
        })
    }

    /// A chart sets the variable to an empty string if its value is not set.
    fn conf_file_name(&self) -> Option<&str> {
        let name = self.cni_conf_file_name.as_deref();
        name.filter(|name| !name.is_empty())
    }

    fn alone(&self) -> PathBuf {
        let name = self.conf_file_name().unwrap_or(ALONE);
        self.dirs.cni_conf_dir.join(name)
    }
}

/// The trimmed, non-empty names of a list.
pub(super) fn split_list(list: &[String]) -> impl Iterator<Item = String> {
    let names = list.iter().map(|name| name.trim());
    names.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The result of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The plugin was already installed in this file.
    Already(PathBuf),
    /// The pass installed the plugin in this file.
    Now(PathBuf),
}

impl Installed {
    /// The file that contains the plugin's entry.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Already(file) | Self::Now(file) => file,
        }
    }
}

/// Installs the plugin, or corrects its installation.
pub fn once(options: &InstallOptions) -> Result<Installed, InstallError> {
    // The binary first: with a list that names a missing plugin, no pod starts.
    binary::install(&options.dirs.cni_bin_dir.join(PLUGIN))?;
    let dir = ConfDir::open(&options.dirs.cni_conf_dir)?;
    if !options.chained {
        return write_alone(options);
    }
    let file = dir.network(options.conf_file_name())?;
    if file.network.has_istio_cni() && !options.allow_istio_cni {
        return Err(step_aside(file)?);
    }
    let settings = options.settings();
    if file.network.has_ours_with(&settings) {
        return Ok(Installed::Already(file.path));
    }
    let path = file.path.clone();
    let with_ours = file.network.clone().with_ours(&settings);
    let with_ours = with_ours.map_err(|why| InstallError::Unusable { file: path, why })?;
    match file.shape {
        Shape::List => file.replace(&with_ours)?,
        Shape::Single => return file.wrap(&with_ours).map(Installed::Now),
    }
    Ok(Installed::Now(file.path))
}

/// Writes a stand-alone network to a file of its own.
fn write_alone(options: &InstallOptions) -> Result<Installed, InstallError> {
    let path = options.alone();
    let text = conflist::alone(&options.settings()).to_text();
    let existing = fs::read_to_string(&path);
    if existing.is_ok_and(|existing| existing == text) {
        return Ok(Installed::Already(path));
    }
    atomic_file::write(&path, &text).map_err(InstallError::io(&path))?;
    Ok(Installed::Now(path))
}

/// Removes our entry from a list that contains istio-cni.
fn step_aside(file: ConfFile) -> Result<InstallError, InstallError> {
    if file.network.has_ours() {
        file.replace(&file.network.clone().without_ours())?;
    }
    Ok(InstallError::IstioCni(file.path))
}

#[cfg(test)]
mod tests;
