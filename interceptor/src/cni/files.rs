//! The plugin's files on a node: its binary, and its entry in the network configuration.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use clap::Args;
use thiserror::Error;

use super::conflist::Unusable;

pub(crate) mod atomic_file;
pub(crate) mod binary;
pub(crate) mod conf_dir;
mod uninstall;

#[cfg(test)]
pub(crate) use uninstall::uninstall_while;
pub use uninstall::{finish, uninstall};

/// The node's directories that CNI lives in. Named as istio-cni's chart names them.
#[derive(Args, Clone, Debug)]
pub struct CniFolders {
    /// The container runtime's directory of CNI plugins, as mounted in this process
    #[arg(
        long,
        env = "CNI_BIN_DIR",
        default_value = "/opt/cni/bin",
        value_name = "DIR"
    )]
    pub cni_bin_dir: PathBuf,

    /// The container runtime's directory of CNI configurations, as mounted in this process
    #[arg(
        long,
        env = "CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    pub cni_conf_dir: PathBuf,

    /// Keep the plugin's binary when uninstalling. CRI-O and Multus remove a pod's network with the
    /// configuration that it was created with: their pods need the binary until they terminate
    #[arg(long, env = "KEEP_CNI_PLUGIN")]
    pub keep_cni_plugin: bool,
}

/// Why the plugin is not installed.
#[derive(Debug, Error)]
pub enum NotInstalled {
    /// The pod network is not there yet.
    #[error(
        "no network configuration in {}{}: waiting for a network plugin to write one",
        dir.display(),
        Passed(passed)
    )]
    NoNetwork {
        /// Where.
        dir: PathBuf,
        /// Files that no runtime takes, and why.
        passed: Vec<String>,
    },
    /// It would be two for one pod.
    #[error(
        "istio-cni is in {} and would capture the same pods, so interceptor-cni is disabled: \
         remove istio-cni, or set --allow-istio-cni",
        .0.display()
    )]
    IstioCni(PathBuf),
    /// It is no network, or takes no chained plugin.
    #[error("{} is not changed: {why}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: Unusable,
    },
    /// The list that one plugin would become is there, and not ours.
    #[error(
        "{} cannot be converted to the list {}, which another program wrote: remove one of them, \
         or set cniConfFileName (--cni-conf-file-name) to the one to use",
        single.display(),
        list.display()
    )]
    InTheWay {
        /// The one plugin's file.
        single: PathBuf,
        /// The other file.
        list: PathBuf,
    },
    /// Somebody has written it at the same time.
    #[error("{} changed concurrently, retrying", .0.display())]
    Changing(PathBuf),
    /// The file system says no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl NotInstalled {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}

struct Passed<'a>(&'a [String]);

impl fmt::Display for Passed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|why| write!(f, " ({why})"))
    }
}
