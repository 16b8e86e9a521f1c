//! Whether pods get istio-cni as well.

use std::path::PathBuf;

use super::InstallOptions;
use crate::cni::files::{NotInstalled, conf_dir::ConfDir};

/// Whether istio-cni programs the node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IstioCni {
    /// Nothing has been looked at yet.
    #[default]
    Unknown,
    /// It does not, or that is to be of no account (`--allow-istio-cni`).
    Absent,
    /// It does, by this file.
    In(PathBuf),
}

/// Looks for istio-cni where our own plugin is to be: in the pods' network, or among those that
/// Multus calls.
pub(super) fn look(options: &InstallOptions) -> Result<IstioCni, NotInstalled> {
    if options.allow_istio_cni {
        return Ok(IstioCni::Absent);
    }
    let dir = ConfDir::open(&options.folders.cni_conf_dir)?;
    let file = if options.chained {
        match dir.network(options.conf_file_name()) {
            Ok(file) => Some(file),
            Err(NotInstalled::NoNetwork { .. }) => None,
            Err(error) => return Err(error),
        }
        .filter(|file| file.network.has_istios())
    } else {
        let mut networks = dir.networks()?.flatten();
        networks.find(|file| file.network.has_istios())
    };
    Ok(file.map_or(IstioCni::Absent, |file| IstioCni::In(file.path)))
}
