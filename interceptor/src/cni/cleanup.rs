//! What the plugin does in the agent's place where there is none: it ends what is kept for sandboxes
//! that end, and once the node is uninstalled and no pod is captured any more, it takes itself off.

use std::{env, path::Path};

use anyhow::{Context as _, Result};

use super::{
    PLUGIN,
    conf::PluginSettings,
    files::{self, CniFolders},
    log,
};
use crate::{
    bpf::pins::Pins,
    dataplane::Dataplane,
    netns::{Netns, NetnsSpec},
};

/// A sandbox ends whose network namespace is at `netns`, if that is still there; or any pod begins or
/// ends, and what is left of others is looked for. A failure stops no pod.
pub(super) fn sweep(settings: &PluginSettings, netns: Option<&Path>) {
    let done = end_sandbox(netns).and_then(|()| leave(settings));
    if let Err(error) = done {
        let line = format!("cannot clean up after terminated pods: {error:#}");
        log::write(settings.log_file.as_deref(), &line);
    }
}

fn end_sandbox(netns: Option<&Path>) -> Result<()> {
    let open = |netns: &Path| Netns::open(&NetnsSpec::File(netns.to_owned())).ok();
    Dataplane::new().end_sandbox(netns.and_then(open).as_ref())
}

/// Takes the plugin off the node, if it is uninstalled and nothing is pinned.
fn leave(settings: &PluginSettings) -> Result<()> {
    let Some(cni_conf_dir) = settings.conf_dir.clone().filter(|_| settings.uninstalled) else {
        return Ok(());
    };
    if Pins::new().exist() {
        return Ok(());
    }
    let own = env::current_exe().context("cannot find the plugin's own binary")?;
    let folders = CniFolders {
        cni_bin_dir: own.parent().unwrap_or(Path::new("/")).to_owned(),
        cni_conf_dir,
        keep_cni_plugin: false,
    };
    for done in files::finish(&folders)? {
        let line = format!("no captured pods remain, removing {PLUGIN} from the node: {done}");
        log::write(settings.log_file.as_deref(), &line);
    }
    Ok(())
}
