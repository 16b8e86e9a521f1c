//! cargo-deny: licences, duplicates and origins of the dependencies.

use std::process::Command;

use anyhow::Result;

use crate::{
    cargo_tool::CargoTool,
    command::{display, exec, say, succeeds},
    paths,
};

const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Checks the rules in `deny.toml`, except advisories, which change independently of the sources.
pub(crate) fn check() -> Result<()> {
    exec(quiet()?.args(["check", "licenses", "bans", "sources"]))
}

/// Checks the advisories of the `RustSec` database, a git repository, and whether a version is withdrawn.
/// Where it cannot be downloaded, nothing is checked: `.github/workflows/advisories.yml` fails then.
pub(crate) fn check_advisories() -> Result<()> {
    let mut fetch = quiet()?;
    if !succeeds(fetch.args(["fetch", "db"])) {
        say(&format!(
            "advisories: NOT CHECKED, because `{}` failed; the nightly workflow checks them",
            display(&fetch)
        ));
        return Ok(());
    }
    exec(quiet()?.args(["check", "advisories"]))
}

fn quiet() -> Result<Command> {
    let mut command = ensure()?;
    command
        .current_dir(paths::root())
        .args(["--log-level", "error"]);
    Ok(command)
}

/// The machine's cargo-deny, or ours, installed if it is missing.
fn ensure() -> Result<Command> {
    let machines = "cargo-deny";
    if succeeds(Command::new(machines).arg("--version")) {
        return Ok(Command::new(machines));
    }
    CARGO_DENY.ensure().map(Command::new)
}
