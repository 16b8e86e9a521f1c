//! Running the product's binary.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};

use crate::command::{bounded, output, run};

/// The binary: `INTERCEPTOR_BIN`, else that of `cargo xtask build`.
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

/// The binary with another layout of policies: `INTERCEPTOR_OTHER_BIN`, else that of `cargo xtask
/// build --other-layout`.
#[must_use]
pub fn other_binary() -> PathBuf {
    env::var_os("INTERCEPTOR_OTHER_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target/debug/interceptor-other-layout")
        },
        PathBuf::from,
    )
}

/// Runs the binary and returns its output, whatever its exit status.
pub fn try_run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
    let binary = binary();
    let shown = binary.display();
    ensure!(
        binary.exists(),
        "{shown} is missing: run `cargo xtask build`"
    );
    output(bounded(binary).args(arguments), "")
}

/// The commands that `interceptor --help` lists.
pub fn commands() -> Result<Vec<String>> {
    let help = String::from_utf8(try_run(["--help"])?.stdout)?;
    let (_, commands) = help.split_once("Commands:\n").context("no commands")?;
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    Ok(names
        .filter(|name| !name.starts_with(' '))
        .filter_map(|name| name.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// Detaches from the network namespace at `netns`.
pub fn detach(netns: &Path) -> Result<()> {
    run(
        bounded(binary()).arg("detach").arg("--netns").arg(netns),
        "",
    )
    .map(drop)
}
