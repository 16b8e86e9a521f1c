//! `cargo xtask build`: the interceptor binary.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf,
    command::{cargo, exec},
    paths,
};

/// Builds the BPF object and the binary around it; returns the binary's path.
pub(crate) fn run() -> Result<PathBuf> {
    build_ebpf::run()?;
    exec(cargo("build").args(["--release", "--package", "interceptor"]))?;
    let binary = paths::cargo_target().join("release/interceptor");
    let size = fs::metadata(&binary)
        .with_context(|| format!("cannot find {}", binary.display()))?
        .len();
    println!("{} ({} KiB)", binary.display(), size / 1024);
    Ok(binary)
}
