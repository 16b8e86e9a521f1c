//! Running the product.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Result, ensure};
use tempfile::NamedTempFile;

use crate::{
    command::{bounded, output, run},
    janitor::{self, Task},
    machine::{self, Shared},
    settings::Settings,
};

/// The binary: `INTERCEPTOR_BIN`, else what `cargo xtask build` makes.
#[must_use]
pub fn binary() -> PathBuf {
    env::var_os("INTERCEPTOR_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target/release/interceptor")
        },
        PathBuf::from,
    )
}

/// The binary whose policies are laid out in another way: `INTERCEPTOR_OTHER_BIN`, else what
/// `cargo xtask build --other-layout` makes.
#[must_use]
pub fn other_binary() -> PathBuf {
    env::var_os("INTERCEPTOR_OTHER_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target/release/interceptor-other-layout")
        },
        PathBuf::from,
    )
}

/// Runs the binary and takes whatever comes of it.
pub fn try_run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
    let binary = binary();
    let shown = binary.display();
    ensure!(
        binary.exists(),
        "{shown} is missing: `cargo xtask build` makes it"
    );
    output(bounded(binary).args(arguments), "")
}

/// Interceptor, attached to a network namespace; detached when dropped, or when the test process
/// dies.
pub struct Attachment {
    netns: PathBuf,
    cgroup: PathBuf,
    _shared: Shared,
}

impl Attachment {
    /// Attaches.
    pub fn new(netns: &Path, cgroup: &Path, settings: &Settings) -> Result<Self> {
        let binary = binary();
        let shown = binary.display();
        ensure!(
            binary.exists(),
            "{shown} is missing: `cargo xtask build` makes it"
        );
        let shared = machine::shared()?;
        janitor::remember(&Task::Detach(netns.to_owned()))?;
        let attachment = Self {
            netns: netns.to_owned(),
            cgroup: cgroup.to_owned(),
            _shared: shared,
        };
        attachment.set(settings)?;
        Ok(attachment)
    }

    /// Puts other settings in the place of those in force.
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
        match detach(&self.netns) {
            // The janitor no longer has to.
            Ok(()) => drop(janitor::remember(&Task::Detached(self.netns.clone()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

/// Detaches from the network namespace at `netns`.
pub fn detach(netns: &Path) -> Result<()> {
    run(
        bounded(binary()).arg("detach").arg("--netns").arg(netns),
        "",
    )
    .map(drop)
}
