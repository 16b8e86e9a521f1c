//! The compiler for BPF, and for what is distributed.
//!
//! No toolchain ships `core` for BPF, so it is built from source, which requires a compiler that
//! permits unstable options and the standard library's source of *the same version*.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    apt,
    command::{read, say, succeeds, without_cargo_env},
    paths,
};

/// Debian's packages of a compiler, which are kept recent for building browsers, and its source.
const DEBIAN_PACKAGES: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];
/// The same compiler's clippy.
const DEBIAN_CLIPPY: &str = "rust-web-clippy";

/// A toolchain that can build `core` for BPF.
#[derive(Clone, Copy)]
pub(crate) enum Toolchain {
    /// Rustup's nightly, with the component `rust-src`.
    Nightly,
    /// Debian's packages.
    Debian,
}

impl Toolchain {
    /// The installed toolchain, or Debian's, which is installed if permitted.
    pub(crate) fn find() -> Result<Self> {
        if nightly_has_source() {
            return Ok(Self::Nightly);
        }
        if !debian_is_complete(&DEBIAN_PACKAGES) {
            install_debian(&DEBIAN_PACKAGES)?;
        }
        Ok(Self::Debian)
    }

    /// Installs clippy, if it is missing.
    pub(crate) fn ensure_clippy(self) -> Result<()> {
        let packages = [&DEBIAN_PACKAGES[..], &[DEBIAN_CLIPPY]].concat();
        match self {
            Self::Debian if !debian_is_complete(&packages) => install_debian(&packages),
            Self::Debian | Self::Nightly => Ok(()),
        }
    }

    /// The toolchain's cargo, permitted to build `core`.
    pub(crate) fn cargo(self, subcommand: &str) -> Command {
        match self {
            Self::Nightly => nightly("cargo", subcommand),
            Self::Debian => debian_cargo(subcommand),
        }
    }

    /// The major version of the compiler's LLVM; bpf-linker must be built with the same.
    pub(crate) fn llvm_major(self) -> Result<String> {
        let version = read(&mut self.rustc("-vV"))?;
        version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
            .map(str::to_owned)
            .with_context(|| {
                format!("the BPF compiler does not report its LLVM version: {version}")
            })
    }

    /// The version of the compiler.
    pub(crate) fn version(self) -> Result<String> {
        let output = read(&mut self.rustc("--version"))?;
        // "rustc VERSION (COMMIT DATE)"
        let version = output.split(' ').nth(1);
        version
            .map(str::to_owned)
            .with_context(|| format!("the BPF compiler does not report its version: {output}"))
    }

    fn rustc(self, argument: &str) -> Command {
        match self {
            Self::Nightly => nightly("rustc", argument),
            Self::Debian => {
                let mut command = without_cargo_env("/usr/bin/rustc");
                command.arg(argument);
                command
            }
        }
    }
}

fn nightly(program: &str, argument: &str) -> Command {
    let mut command = without_cargo_env("rustup");
    command
        // A missing nightly is not installed: Debian's packages are used instead.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", program, argument]);
    command
}

fn nightly_has_source() -> bool {
    paths::program("rustup").is_some()
        && succeeds(&mut nightly("rustc", "--version"))
        && read(&mut nightly("rustc", "--print=sysroot"))
            .is_ok_and(|sysroot| has_source(sysroot.trim()))
}

fn has_source(sysroot: &str) -> bool {
    Path::new(sysroot)
        .join("lib/rustlib/src/rust/library")
        .exists()
}

/// Whether all the packages are installed, in one version.
fn debian_is_complete(packages: &[&str]) -> bool {
    let installed = apt::installed(packages);
    let mut versions: Vec<_> = installed.values().collect();
    versions.dedup();
    installed.len() == packages.len() && versions.len() == 1 && has_source("/usr")
}

fn install_debian(packages: &[&str]) -> Result<()> {
    say(
        "no nightly toolchain with rust-src is installed: installing Debian's packages to build for BPF",
    );
    apt::install(packages).context(
        "no compiler for BPF: either `rustup toolchain install nightly --component rust-src`, or \
         Debian's packages",
    )
}

fn debian_cargo(subcommand: &str) -> Command {
    // `cargo clippy` would run rustup's `cargo-clippy`, which is in cargo's home.
    let mut command = without_cargo_env(match subcommand {
        "clippy" => "/usr/bin/cargo-clippy",
        _ => "/usr/bin/cargo",
    });
    command
        .env("CARGO", "/usr/bin/cargo")
        .env("RUSTC", "/usr/bin/rustc")
        // The packaged compiler is a stable one; this lets it accept `-Z`.
        .env("RUSTC_BOOTSTRAP", "1")
        .arg(subcommand);
    command
}
