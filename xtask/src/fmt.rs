//! `cargo xtask fmt`: the format.

use std::process::Command;

use anyhow::Result;

use crate::{
    command::{cargo, exec},
    python_tool,
};

/// Options that stable rustfmt ignores in `rustfmt.toml`, but accepts on its command line.
const CONFIG: &str = "group_imports=StdExternalCrate,imports_granularity=Crate";

/// Formats all files.
pub(crate) fn apply() -> Result<()> {
    exec(&mut cargo_fmt(&[]))?;
    python_tool::format_toml()
}

/// Fails if a file is not formatted.
pub(crate) fn check() -> Result<()> {
    exec(&mut cargo_fmt(&["--check"]))?;
    python_tool::check_toml()
}

fn cargo_fmt(options: &[&str]) -> Command {
    let mut command = cargo("fmt");
    command
        .arg("--all")
        .args(options)
        .args(["--", "--config", CONFIG]);
    command
}
