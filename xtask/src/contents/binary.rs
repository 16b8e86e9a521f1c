//! The static binary: it runs in an otherwise empty image, and as a CNI plugin on any host.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::{self, Need},
    architecture::Architecture,
    build_ebpf::{self, Variant},
    cargo_tool::CargoTool,
    command::{exec, read},
    cross, paths,
    toolchain::Toolchain,
};

/// Writes the list of dependencies into the binary, where scanners for vulnerabilities find it.
const AUDITABLE: CargoTool = CargoTool {
    name: "cargo-auditable",
    version: "0.7.7",
};
/// The section with that list, compressed by zlib.
const DEPENDENCIES: &str = ".dep-v0";

/// Builds the binary, with the BPF object inside. Its bytes do not depend on the directory: paths are trimmed.
pub(super) fn build(architecture: Architecture) -> Result<Vec<u8>> {
    let object = build_ebpf::run_variant(Variant::For(architecture.name()))?;
    let auditable = AUDITABLE.ensure()?;
    let directory = auditable.parent().context("a program has no directory")?;
    let mut cargo = Toolchain::find()?.cargo("auditable");
    cargo.arg("build");
    cross::configure(&mut cargo, architecture)?;
    cargo
        .args(["--release", "--package", "interceptor", "-Z", "trim-paths"])
        .arg("--target-dir")
        .arg(target_dir())
        .env("PATH", paths::path_with(directory)?)
        .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
        .env("INTERCEPTOR_EBPF", object);
    exec(&mut cargo)?;
    let binary = path(architecture);
    check(&binary)?;
    fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))
}

/// The path of the built binary.
pub(crate) fn path(architecture: Architecture) -> PathBuf {
    let target = target_dir().join(architecture.target());
    target.join("release/interceptor")
}

/// Separate from the host's, which another compiler builds.
fn target_dir() -> PathBuf {
    paths::target().join("static")
}

/// A binary that requires a loader would not run in the image, which has none.
fn check(binary: &Path) -> Result<()> {
    apt::ensure(&[Need::new("readelf", "binutils")])?;
    let headers = read(
        Command::new("readelf")
            .args(["--wide", "--program-headers", "--sections"])
            .arg(binary),
    )?;
    let name = binary.display();
    ensure!(
        !headers.contains("INTERP"),
        "{name} is not static: it requires a loader"
    );
    ensure!(
        headers.contains(DEPENDENCIES),
        "{name} has no list of its dependencies: no section {DEPENDENCIES}"
    );
    Ok(())
}
