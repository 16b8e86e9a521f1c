//! Programs of crates.io, in fixed versions.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{cargo, exec, say},
    paths,
};

/// A program, named as its crate.
pub(crate) struct CargoTool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

impl CargoTool {
    /// The program, installed if it is missing.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        self.ensure_with(&[])
    }

    /// The same, installed with these arguments of `cargo install`.
    pub(crate) fn ensure_with(&self, arguments: &[&str]) -> Result<PathBuf> {
        let Self { name, version } = self;
        let root = paths::tool(&format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        // cargo installs a program completely or not at all.
        if !program.is_file() {
            say(&format!(
                "installing {name} {version} into {}, which takes minutes",
                root.display()
            ));
            let mut install = install(name, version, &root);
            exec(install.args(arguments)).with_context(|| format!("no {name}"))?;
        }
        Ok(program)
    }
}

/// The command that installs a program below `root`.
pub(crate) fn install(name: &str, version: &str, root: &Path) -> Command {
    let mut install = cargo("install");
    install
        .args([name, "--version", version, "--locked", "--quiet"])
        // Without optimization: they are run a few times, and compiling them takes longer.
        .arg("--debug")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .arg("--root")
        .arg(root)
        // Another cargo process may have locked the target directory.
        .env_remove("CARGO_TARGET_DIR");
    install
}
