//! cargo-deny: licences, duplicates and origins of the dependencies.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{
    command::{cargo, exec, say, succeeds},
    paths,
};

const VERSION: &str = "0.20.2";

/// Checks what `deny.toml` demands. Advisories are left out: they change without the sources
/// changing.
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

/// The cargo-deny of the machine, or ours, installed if it is not there.
fn ensure() -> Result<Command> {
    let ours = paths::tool(&format!("cargo-deny-{VERSION}"));
    for program in ["cargo-deny".into(), ours.join("bin/cargo-deny")] {
        if succeeds(Command::new(&program).arg("--version")) {
            return Ok(Command::new(program));
        }
    }
    say(&format!(
        "installing cargo-deny {VERSION} into {}: minutes",
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
