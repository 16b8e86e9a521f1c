//! bpf-linker, which turns LLVM bitcode into a BPF object.
//!
//! The one on the `PATH`, if any, is not used: it must read the bitcode of the BPF compiler's LLVM, and
//! does not report its own LLVM version.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Need},
    cargo_tool,
    command::{exec, say, succeeds},
    paths,
};

const VERSION: &str = "0.13.0";

/// The directory of a bpf-linker for this LLVM, which is built if it is missing.
pub(crate) fn ensure(llvm_major: &str) -> Result<PathBuf> {
    let root = paths::tool(&format!("bpf-linker-{VERSION}-llvm-{llvm_major}"));
    let bin = root.join("bin");
    if !succeeds(Command::new(bin.join("bpf-linker")).arg("--version")) {
        install(llvm_major, &root)
            .with_context(|| format!("no bpf-linker {VERSION} for LLVM {llvm_major}"))?;
    }
    Ok(bin)
}

/// The directory of Debian's packages of this LLVM.
pub(crate) fn llvm_prefix(llvm_major: &str) -> PathBuf {
    Path::new("/usr/lib").join(format!("llvm-{llvm_major}"))
}

fn install(llvm_major: &str, root: &Path) -> Result<()> {
    let prefix = llvm_prefix(llvm_major);
    apt::ensure(&[
        Need::new(
            prefix.join("include/llvm-c/Core.h"),
            format!("llvm-{llvm_major}-dev"),
        ),
        Need::new(
            prefix.join("lib/libPolly.a"),
            format!("libpolly-{llvm_major}-dev"),
        ),
    ])
    .with_context(|| {
        format!("bpf-linker is built with the development files of LLVM {llvm_major}")
    })?;

    say(&format!(
        "installing bpf-linker {VERSION} for LLVM {llvm_major} into {}",
        root.display()
    ));
    exec(
        cargo_tool::install("bpf-linker", VERSION, root)
            .env("PATH", paths::path_with(&prefix.join("bin"))?)
            .env("LLVM_PREFIX", prefix)
            .args(["--force", "--no-default-features", "--features"])
            .arg(format!("llvm-{llvm_major}")),
    )
}
