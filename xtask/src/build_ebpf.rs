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
/// Where the object goes in the target folder; `interceptor/build.rs` has the other side.
const OBJECT: &str = "ebpf/interceptor.o";
/// The architecture of this machine, by Rust's name.
const THIS_MACHINES: &str = env::consts::ARCH;
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Builds the object for this machine.
pub(crate) fn run() -> Result<()> {
    build(THIS_MACHINES, &paths::target().join(OBJECT))
}

/// Builds the object for machines of that architecture; returns its path.
pub(crate) fn run_for(architecture: &str) -> Result<PathBuf> {
    let name = match architecture {
        THIS_MACHINES => OBJECT.to_owned(),
        other => OBJECT.replace(".o", &format!("-{other}.o")),
    };
    let object = paths::target().join(name);
    build(architecture, &object)?;
    Ok(object)
}

fn build(architecture: &str, object: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let llvm_major = toolchain.llvm_major()?;
    let linker = bpf_linker::ensure(&llvm_major)?;
    let mut compile = cargo_for(architecture, toolchain, "build");
    exec(compile.env("PATH", bpf_linker::path_with(&linker)?))?;
    let built = target_dir().join(TARGET).join("release").join(PACKAGE);
    install(object, &without_dwarf(&built, &llvm_major)?)
}

/// A cargo command on the BPF programs.
pub(crate) fn cargo(toolchain: Toolchain, subcommand: &str) -> Command {
    cargo_for(THIS_MACHINES, toolchain, subcommand)
}

fn cargo_for(architecture: &str, toolchain: Toolchain, subcommand: &str) -> Command {
    let mut command = toolchain.cargo(subcommand);
    command
        .args(["-Z", "build-std=core", "-Z", "trim-paths"])
        .args(["--release", "--target", TARGET])
        .args(["--package", PACKAGE, "--bin", PACKAGE, "--target-dir"])
        .arg(target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(architecture));
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

fn rustflags(architecture: &str) -> String {
    [
        // aya-ebpf asks which architecture's registers and kernel types a probe sees.
        &format!("--cfg=bpf_target_arch=\"{architecture}\""),
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
fn install(object: &Path, new: &[u8]) -> Result<()> {
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(object, new).with_context(|| format!("cannot write {}", object.display()))?;
    say(&format!("new BPF object: {}", object.display()));
    Ok(())
}
