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
    machine::{self, Shared},
    settings::Settings,
};

/// Interceptor attached to a network namespace; detached when dropped, or when the test process
/// exits.
pub struct Attachment {
    netns: PathBuf,
    cgroup: PathBuf,
    _shared: Shared,
}

impl Attachment {
    /// Attaches the pod.
    pub fn new(netns: &Path, cgroup: &Path, settings: &Settings) -> Result<Self> {
        let binary = binary();
        let shown = binary.display();
        ensure!(
            binary.exists(),
            "{shown} is missing: run `cargo xtask build`"
        );
        let shared = machine::shared()?;
        janitor::register(&Task::Detach(netns.to_owned()))?;
        let attachment = Self {
            netns: netns.to_owned(),
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
        run(&mut command, "").map(drop)
    }
}

fn temporary_file(text: String) -> Result<NamedTempFile> {
    let file = NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(file)
}

impl Drop for Attachment {
    fn drop(&mut self) {
        match interceptor::detach(&self.netns) {
            // The janitor no longer has to detach.
            Ok(()) => drop(janitor::register(&Task::Detached(self.netns.clone()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
