//! `cargo xtask man`: the manual pages, one for each command.

use std::process::Command;

use anyhow::Result;

use crate::{
    build,
    command::{exec, say},
    paths,
};

/// Builds the binary, which writes the pages into target/man.
pub(crate) fn run() -> Result<()> {
    let directory = paths::target().join("man");
    exec(
        Command::new(build::run()?)
            .args(["man", "--output"])
            .arg(&directory),
    )?;
    say(&format!("manual pages: {}", directory.display()));
    Ok(())
}
