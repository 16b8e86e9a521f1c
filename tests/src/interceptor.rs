//! Running the product.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Result, ensure};

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
        let netns = netns.to_owned();
        janitor::remember(&Task::Detach(netns.clone()))?;
        let attachment = Self {
            netns,
            _shared: shared,
        };
        let mut command = bounded(binary);
        command.arg("attach").arg("--netns").arg(&attachment.netns);
        command.arg("--cgroup").arg(cgroup).args(settings.flags());
        run(&mut command, "")?;
        Ok(attachment)
    }
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
