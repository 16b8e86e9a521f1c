//! The workspace's programs for guests of an architecture.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    architecture::Architecture,
    build,
    build_ebpf::{self, Variant},
    command::{self, exec, read},
    cross, paths,
    toolchain::Toolchain,
};

/// The smoke test.
pub(super) const SMOKE: &str = "vm-smoke";

/// Built programs. Those for another architecture than this machine's are static.
pub(super) struct Programs {
    pub(super) interceptor: PathBuf,
    pub(super) smoke: PathBuf,
    /// The kernel tests, if they were built.
    tests: Option<PathBuf>,
}

impl Programs {
    /// Builds the programs for this machine's architecture, and the kernel tests.
    pub(super) fn of_this_machine() -> Result<Self> {
        let interceptor = build::tested()?;
        Ok(Self {
            interceptor,
            tests: Some(tests(command::cargo("test").args(build::PACKAGES))?),
            // Building tests builds the programs beside them.
            smoke: build::built(SMOKE),
        })
    }

    /// Builds static programs.
    pub(super) fn of_another(architecture: Architecture, with_tests: bool) -> Result<Self> {
        let mut build = cross_cargo(architecture, "build")?;
        build.args(["--bin", "interceptor", "--bin", SMOKE]);
        exec(&mut build)?;
        let directory = target_dir().join(architecture.target()).join("debug");
        let with_tests = with_tests.then(|| tests(&mut cross_cargo(architecture, "test")?));
        Ok(Self {
            interceptor: directory.join("interceptor"),
            smoke: directory.join(SMOKE),
            tests: with_tests.transpose()?,
        })
    }

    /// The kernel tests.
    pub(super) fn tests(&self) -> Result<&Path> {
        self.tests.as_deref().context("no kernel tests were built")
    }

    /// The names of all kernel tests; the programs must be this machine's.
    pub(super) fn list_tests(&self) -> Result<Vec<String>> {
        let mut list = Command::new(self.tests()?);
        let listing = read(list.args(["--list", "--format", "terse"]))?;
        let names = listing
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    /// The path of a program that tests start.
    pub(super) fn beside_the_smoke_test(&self, name: &str) -> PathBuf {
        self.smoke.with_file_name(name)
    }
}

/// A cargo command for a development build of the packages that are always selected together.
fn cross_cargo(architecture: Architecture, subcommand: &str) -> Result<Command> {
    let object = build_ebpf::run_variant(Variant::For(architecture.name()))?;
    let mut cargo = Toolchain::find()?.cargo(subcommand);
    cross::configure(&mut cargo, architecture)?;
    cargo
        .args(build::PACKAGES)
        .arg("--target-dir")
        .arg(target_dir())
        .env("INTERCEPTOR_EBPF", object)
        // Debug information would be most of a guest's initramfs.
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    Ok(cargo)
}

fn target_dir() -> PathBuf {
    paths::target().join("static")
}

/// Builds the kernel tests, and the programs that they start; returns the path of their binary.
fn tests(cargo: &mut Command) -> Result<PathBuf> {
    let messages = read(cargo.args([
        "--test",
        "kernel",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kernel")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo has built no tests")
}
