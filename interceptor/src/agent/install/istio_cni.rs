//! Detects istio-cni in the network configuration.

use std::path::PathBuf;

use super::InstallOptions;
use crate::cni::files::{InstallError, conf_dir::ConfDir};

/// Whether istio-cni programs the node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IstioCni {
    /// Not checked yet.
    #[default]
    Unknown,
    /// It does not, or `--allow-istio-cni` is set.
    Absent,
    /// It does: it is in this file.
    In(PathBuf),
}

/// Searches for istio-cni where our plugin is to be installed: in the pod network, or in all networks
/// that Multus may call.
pub(super) fn detect(options: &InstallOptions) -> Result<IstioCni, InstallError> {
    if options.allow_istio_cni {
        return Ok(IstioCni::Absent);
    }
    let dir = ConfDir::open(&options.dirs.cni_conf_dir)?;
    let file = if options.chained {
        match dir.network(options.conf_file_name()) {
            Ok(file) => Some(file),
            Err(InstallError::NoNetwork { .. }) => None,
            Err(error) => return Err(error),
        }
        .filter(|file| file.network.has_istio_cni())
    } else {
        let mut networks = dir.networks()?.flatten();
        networks.find(|file| file.network.has_istio_cni())
    };
    Ok(file.map_or(IstioCni::Absent, |file| IstioCni::In(file.path)))
}
