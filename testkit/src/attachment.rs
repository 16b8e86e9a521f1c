//! A pod that is captured with given settings.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use tempfile::NamedTempFile;

use crate::{
    command::{bounded, run},
    interceptor::{self, binary},
    janitor::{self, Task},
    kept::{self, SharedLoaded},
    netns::Netns,
    settings::Settings,
};

/// Interceptor attached to a network namespace; detached when dropped, or when the test process
/// exits.
pub struct Attachment {
    netns: PathBuf,
    node: PathBuf,
    cgroup: PathBuf,
    _shared: SharedLoaded,
}

impl Attachment {
    /// Attaches the pod as an agent does, from the network namespace `node`, which has the other
    /// ends of the pod's veths.
    pub fn new(netns: &Path, node: &Path, cgroup: &Path, settings: &Settings) -> Result<Self> {
        let binary = binary();
        let shown = binary.display();
        ensure!(
            binary.exists(),
            "{shown} is missing: run `cargo xtask build`"
        );
        let shared = kept::shared()?;
        janitor::register(&Task::Detach(netns.to_owned()))?;
        let attachment = Self {
            netns: netns.to_owned(),
            node: node.to_owned(),
            cgroup: cgroup.to_owned(),
            _shared: shared,
        };
        attachment.set(settings)?;
        Ok(attachment)
    }

    /// Replaces the settings.
    pub fn set(&self, settings: &Settings) -> Result<()> {
        let mut command = bounded(binary());
        command.arg("attach").arg("--netns").arg(&self.netns);
        command.arg("--cgroup").arg(&self.cgroup);
        command.args(settings.flags()).envs(settings.environment());
        let resolv_conf = settings.resolv_conf().map(temporary_file).transpose()?;
        if let Some(file) = &resolv_conf {
            command.arg("--resolv-conf").arg(file.path());
        }
        Netns::enter_at(&self.node, || run(&mut command, "")).map(drop)
    }
}

fn temporary_file(text: String) -> Result<NamedTempFile> {
    let file = NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(file)
}

impl Drop for Attachment {
    fn drop(&mut self) {
        match Netns::enter_at(&self.node, || interceptor::detach(&self.netns)) {
            // The janitor no longer has to detach.
            Ok(()) => drop(janitor::register(&Task::Detached(self.netns.clone()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
