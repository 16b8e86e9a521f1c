//! The plugin's work while no agent runs: it detaches deleted sandboxes, and after an uninstallation it
//! removes itself with the last captured pod.

use std::{env, path::Path};

use anyhow::{Context as _, Result};

use super::{
    PLUGIN,
    conf::PluginSettings,
    files::{self, CniDirs},
    log,
};
use crate::{
    bpf::pins::Pins,
    dataplane::Dataplane,
    netns::{Netns, NetnsSpec},
};

/// Detaches the sandbox with the network namespace at `netns`, if it still exists, and sweeps what
/// other deleted sandboxes left behind. A failure is logged, and does not fail the CNI call.
pub(super) fn sweep(settings: &PluginSettings, netns: Option<&Path>) {
    let done = end_sandbox(netns).and_then(|()| uninstall(settings));
    if let Err(error) = done {
        let line = format!("cannot clean up after terminated pods: {error:#}");
        log::write(settings.log_file.as_deref(), &line);
    }
}

fn end_sandbox(netns: Option<&Path>) -> Result<()> {
    let open = |netns: &Path| Netns::open(&NetnsSpec::File(netns.to_owned())).ok();
    Dataplane::new().end_sandbox(netns.and_then(open).as_ref())
}

/// Removes the plugin from the node, if the node is uninstalled and nothing is pinned.
fn uninstall(settings: &PluginSettings) -> Result<()> {
    let Some(cni_conf_dir) = settings.conf_dir.clone().filter(|_| settings.uninstalled) else {
        return Ok(());
    };
    if Pins::new().exist()? {
        return Ok(());
    }
    let own = env::current_exe().context("cannot find the plugin's own binary")?;
    let dirs = CniDirs {
        cni_bin_dir: own.parent().unwrap_or(Path::new("/")).to_owned(),
        cni_conf_dir,
        keep_cni_plugin: false,
    };
    for done in files::finish(&dirs)? {
        let line = format!("no captured pods remain, removing {PLUGIN} from the node: {done}");
        log::write(settings.log_file.as_deref(), &line);
    }
    Ok(())
}
