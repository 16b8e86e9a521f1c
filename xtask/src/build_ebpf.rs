//! `cargo xtask build-ebpf`: the BPF object.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    bpf_linker,
    command::{exec, say},
    paths,
    toolchain::Toolchain,
};

/// The package and its binary.
const PACKAGE: &str = "interceptor-ebpf";
/// Where the objects go in the target folder; `interceptor/build.rs` has the other side.
const FOLDER: &str = "ebpf";
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Which object is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// What is shipped.
    Product,
    /// The same with another layout of policies and listeners, for the tests of upgrades.
    OtherLayout,
}

impl Variant {
    /// The feature that makes it.
    pub(crate) const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Product => &[],
            Self::OtherLayout => &["--features", "other-layout"],
        }
    }

    const fn object(self) -> &'static str {
        match self {
            Self::Product => "interceptor.o",
            Self::OtherLayout => "interceptor-other-layout.o",
        }
    }
}

/// Builds the object that is shipped.
pub(crate) fn run() -> Result<()> {
    run_variant(Variant::Product)
}

/// Builds an object.
pub(crate) fn run_variant(variant: Variant) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let llvm_major = toolchain.llvm_major()?;
    let linker = bpf_linker::ensure(&llvm_major)?;
    let mut compile = cargo(toolchain, "build");
    compile.args(variant.features());
    exec(compile.env("PATH", bpf_linker::path_with(&linker)?))?;
    let built = target_dir().join(TARGET).join("release").join(PACKAGE);
    install(variant, &without_dwarf(&built, &llvm_major)?)
}

/// A cargo command on the BPF programs.
pub(crate) fn cargo(toolchain: Toolchain, subcommand: &str) -> Command {
    let mut command = toolchain.cargo(subcommand);
    command
        .args(["-Z", "build-std=core", "-Z", "trim-paths"])
        .args(["--release", "--target", TARGET])
        .args(["--package", PACKAGE, "--bin", PACKAGE, "--target-dir"])
        .arg(target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags());
    // The workspace's release profile is the host's.
    for (setting, value) in [
        ("CODEGEN_UNITS", "1"),
        // BTF is made of it.
        ("DEBUG", "2"),
        // bpf-linker's business.
        ("LTO", "off"),
        ("PANIC", "abort"),
        ("STRIP", "none"),
        // The object is the same wherever it is built.
        ("TRIM_PATHS", "all"),
    ] {
        command.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    command
}

fn rustflags() -> String {
    [
        // aya-ebpf asks which architecture's registers and kernel types a probe sees.
        &format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Clink-arg=--btf",
        // The default has no atomics that return the old value. Kernel 5.12.
        "-Ctarget-cpu=v3",
    ]
    .join("\x1f")
}

/// Apart from the host's, which other flags would invalidate.
fn target_dir() -> PathBuf {
    paths::target().join("ebpf-build")
}

/// The object with its BTF and without the debug information for debuggers, four fifths of it.
fn without_dwarf(object: &Path, llvm_major: &str) -> Result<Vec<u8>> {
    let stripped = object.with_extension("stripped");
    exec(
        Command::new(bpf_linker::llvm_prefix(llvm_major).join("bin/llvm-strip"))
            .arg("--strip-debug")
            .arg("-o")
            .arg(&stripped)
            .arg(object),
    )?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// Writes the object when it is another one: its time of change makes cargo rebuild what embeds it.
fn install(variant: Variant, new: &[u8]) -> Result<()> {
    let object = paths::target().join(FOLDER).join(variant.object());
    if fs::read(&object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&object, new).with_context(|| format!("cannot write {}", object.display()))?;
    say(&format!("new BPF object: {}", object.display()));
    Ok(())
}
