//! Running the product.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Result, ensure};

use crate::command::{bounded, output, run};

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

/// Detaches from the network namespace at `netns`.
pub fn detach(netns: &Path) -> Result<()> {
    run(
        bounded(binary()).arg("detach").arg("--netns").arg(netns),
        "",
    )
    .map(drop)
}
