//! cargo-deny: licences, duplicates and origins of the dependencies.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{
    command::{cargo, exec, say, succeeds},
    paths,
};

const VERSION: &str = "0.20.2";

/// Checks the rules in `deny.toml`, except advisories, which change independently of the sources.
pub(crate) fn check() -> Result<()> {
    exec(ensure()?.current_dir(paths::root()).args([
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

/// The machine's cargo-deny, or ours, installed if it is missing.
fn ensure() -> Result<Command> {
    let ours = paths::tool(&format!("cargo-deny-{VERSION}"));
    for program in ["cargo-deny".into(), ours.join("bin/cargo-deny")] {
        if succeeds(Command::new(&program).arg("--version")) {
            return Ok(Command::new(program));
        }
    }
    say(&format!(
        "installing cargo-deny {VERSION} into {}, which takes minutes",
        ours.display()
    ));
    let mut install = cargo("install");
    install
        .args([
            "cargo-deny",
            "--version",
            VERSION,
            "--locked",
            "--quiet",
            "--root",
        ])
        .arg(&ours);
    exec(install.env_remove("CARGO_TARGET_DIR")).context("no cargo-deny")?;
    Ok(Command::new(ours.join("bin/cargo-deny")))
}
