//! `cargo xtask build`: the interceptor binary.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf::{self, THIS_MACHINES, Variant},
    command::{cargo, exec},
    paths,
};

/// Builds the BPF object and the binary around it; returns the binary's path.
pub(crate) fn run() -> Result<PathBuf> {
    let binary = build(Variant::For(THIS_MACHINES))?;
    let size = fs::metadata(&binary)
        .with_context(|| format!("cannot find {}", binary.display()))?
        .len();
    println!("{} ({} KiB)", binary.display(), size / 1024);
    Ok(binary)
}

/// Builds the binary with another layout of policies and listeners, for tests of upgrades; returns its
/// path. (For cargo it is the same binary, so it is copied before that is built.)
pub(crate) fn other_layout() -> Result<PathBuf> {
    let binary = build(Variant::OtherLayout)?;
    let copy = binary.with_file_name("interceptor-other-layout");
    fs::copy(&binary, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

/// Builds the BPF object and a development binary around it; returns the binary's path.
pub(crate) fn development() -> Result<PathBuf> {
    build_ebpf::run()?;
    exec(cargo("build").args(["--package", "interceptor"]))?;
    Ok(paths::cargo_target().join("debug/interceptor"))
}

fn build(variant: Variant<'_>) -> Result<PathBuf> {
    build_ebpf::run_variant(variant)?;
    let mut build = cargo("build");
    build.args(["--release", "--package", "interceptor"]);
    exec(build.args(variant.features()))?;
    Ok(paths::cargo_target().join("release/interceptor"))
}
