//! Installs Debian packages, with a message, if the user is permitted to.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{
    command::{exec, say},
    paths,
};

/// A file that a task needs, and the package that contains it.
pub(crate) struct Need {
    /// The program's name, or the absolute path of a file, that exists when the need is met.
    file: PathBuf,
    /// The Debian package.
    package: String,
}

impl Need {
    /// A need, and the package that meets it.
    pub(crate) fn new(file: impl Into<PathBuf>, package: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            package: package.into(),
        }
    }

    fn is_met(&self) -> bool {
        let file = &self.file;
        if file.is_absolute() {
            file.exists()
        } else {
            paths::program(file).is_some()
        }
    }
}

/// Installs the packages of those needs that are not met.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package.as_str())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        install(&missing)
    }
}

/// Installs or upgrades packages; without permission, fails with the command to run.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let packages = packages.join(" ");
    if paths::program("apt-get").is_none() {
        bail!("required, and must be installed by hand (Debian's names): {packages}");
    }
    if !is_root()? {
        bail!(
            "required: run `sudo apt-get update && sudo apt-get install --no-install-recommends \
             {packages}`"
        );
    }
    say(&format!("installing Debian packages: {packages}"));
    for mut command in [update(), installation(&packages)] {
        // Its output lists every package; errors are on standard error.
        exec(command.stdout(Stdio::null()))?;
    }
    Ok(())
}

/// The versions of those packages that are installed.
pub(crate) fn installed(packages: &[&str]) -> BTreeMap<String, String> {
    let mut query = Command::new("dpkg-query");
    query.args([
        "--show",
        "--showformat",
        "${db:Status-Status} ${Package} ${Version}\n",
    ]);
    // If a package is unknown, dpkg-query fails, but still prints the others.
    let listing = query
        .args(packages)
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&listing)
        .lines()
        .filter_map(|line| line.strip_prefix("installed ")?.split_once(' '))
        .map(|(package, version)| (package.to_owned(), version.to_owned()))
        .collect()
}

fn update() -> Command {
    let mut command = apt_get();
    command.args(["--quiet=2", "update"]);
    command
}

fn installation(packages: &str) -> Command {
    let mut command = apt_get();
    command
        .args(["--quiet=2", "--yes", "--no-install-recommends", "install"])
        .args(packages.split(' '));
    command
}

/// `apt-get` without questions, which waits for another one to exit.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Dpkg::Use-Pty=0",
    ]);
    command
}

/// Whether this process is root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}
