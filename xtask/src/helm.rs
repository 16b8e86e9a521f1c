//! Helm, which the tests of the chart call.
//!
//! No registry of packages has the program, but `PyPI` has it as a library.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{say, succeeds},
    paths, pip,
};

const PACKAGE: &str = "helm-python-sdk";
const VERSION: &str = "0.2.2";

/// The directory with the Python module, installed if it is missing.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = paths::tool(&format!("{PACKAGE}-{VERSION}"));
    if !can_import(&dir) {
        say(&format!("installing {PACKAGE} into {}", dir.display()));
        pip::install(&format!("{PACKAGE}=={VERSION}"), &dir)
            .with_context(|| format!("cannot install {PACKAGE} (the package is for x86-64)"))?;
    }
    Ok(dir)
}

fn can_import(dir: &Path) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import helm_python"]);
    succeeds(python.env("PYTHONPATH", dir))
}
