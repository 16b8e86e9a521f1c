//! Checkers that are packaged for Python as programs, in fixed versions.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    command::{exec, say, succeeds},
    paths, pip,
};

/// Spelling, by a list of known mistakes: `typos.toml`.
const TYPOS: Tool = Tool {
    name: "typos",
    version: "1.52.0",
};
/// The format of TOML files: `taplo.toml`.
const TAPLO: Tool = Tool {
    name: "taplo",
    version: "0.9.3",
};

/// Fails if a file has a spelling mistake.
pub(crate) fn check_spelling() -> Result<()> {
    exec(TYPOS.command()?.args(["--config", "typos.toml"]))
        .context("fix the spelling, or add a term of this project to typos.toml")
}

/// Fails if a TOML file is not formatted.
pub(crate) fn check_toml() -> Result<()> {
    exec(
        TAPLO
            .command()?
            .args(["fmt", "--check", "--diff"])
            .env("RUST_LOG", "warn"),
    )
    .context("run `cargo xtask fmt`")
}

/// Formats the TOML files.
pub(crate) fn format_toml() -> Result<()> {
    exec(TAPLO.command()?.arg("fmt").env("RUST_LOG", "warn"))
}

struct Tool {
    name: &'static str,
    version: &'static str,
}

impl Tool {
    /// The tool in the workspace's root, installed if it is missing.
    fn command(&self) -> Result<Command> {
        let program = self.ensure()?;
        let mut command = Command::new(program);
        command.current_dir(paths::root());
        Ok(command)
    }

    fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version } = self;
        let dir = paths::tool(&format!("{name}-{version}"));
        let program = dir.join("bin").join(name);
        if !succeeds(Command::new(&program).arg("--version")) {
            say(&format!(
                "installing {name} {version} into {}",
                dir.display()
            ));
            pip::install(&format!("{name}=={version}"), &dir)
                .with_context(|| format!("cannot install {name}"))?;
        }
        Ok(program)
    }
}
