//! Installs Python packages, some of which contain programs.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{
    apt::{self, Need},
    command::{exec, succeeds},
};

/// Installs one package without its dependencies; `requirement` is `name==version`.
pub(crate) fn install(requirement: &str, dir: &Path) -> Result<()> {
    apt::ensure(&[Need::new("python3", "python3")])?;
    if !succeeds(pip().arg("--version")) {
        apt::install(&["python3-pip"])?;
    }
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
            .arg(requirement),
    )
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}
