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

/// The node's CNI directories. Option names follow istio-cni's chart.
#[derive(Args, Clone, Debug)]
pub struct CniDirs {
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

/// An error of installing or uninstalling the plugin.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The directory has no usable network configuration yet.
    #[error(
        "no network configuration in {}{}: waiting for a network plugin to write one",
        dir.display(),
        Passed(passed)
    )]
    NoNetwork {
        /// The directory.
        dir: PathBuf,
        /// The errors of unusable files.
        passed: Vec<String>,
    },
    /// istio-cni is in this file.
    #[error(
        "istio-cni is in {} and would capture the same pods, so interceptor-cni is disabled: \
         remove istio-cni, or set --allow-istio-cni",
        .0.display()
    )]
    IstioCni(PathBuf),
    /// The file is not a network configuration, or does not support chained plugins.
    #[error("{} is not changed: {why}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: Unusable,
    },
    /// A single plugin cannot be converted to a list, as another program wrote a list of that name.
    #[error(
        "{} cannot be converted to the list {}, which another program wrote: remove one of them, \
         or set cniConfFileName (--cni-conf-file-name) to the one to use",
        single.display(),
        list.display()
    )]
    InTheWay {
        /// The single plugin's file.
        single: PathBuf,
        /// The existing list.
        list: PathBuf,
    },
    /// Another program changed the file during the pass.
    #[error("{} changed concurrently, retrying", .0.display())]
    Changing(PathBuf),
    /// A file operation failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

impl InstallError {
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
