//! `cargo xtask build-ebpf`: the BPF object.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};

use crate::{
    bpf_linker,
    command::{exec, say},
    paths,
    toolchain::Toolchain,
};

/// The package and its binary.
pub(crate) const PACKAGE: &str = "interceptor-ebpf";
/// The objects' directory in the target directory; `interceptor/build.rs` reads them there.
const DIR: &str = "ebpf";
/// A file there; `interceptor/build.rs` waits while it is locked.
const LOCK: &str = "lock";
/// Rust's name of this machine's architecture.
pub(crate) const THIS_MACHINES: &str = env::consts::ARCH;
pub(crate) const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Which object is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant<'a> {
    /// The product's, for machines of this architecture, by Rust's name.
    For(&'a str),
    /// For this machine and with another layout of policies and listeners, for the tests of upgrades.
    OtherLayout,
}

impl<'a> Variant<'a> {
    /// The argument of cargo for the features of this package.
    pub(crate) fn features(self, package: &str) -> Option<String> {
        match self {
            Self::For(_) => None,
            Self::OtherLayout => Some(format!("--features={package}/other-layout")),
        }
    }

    const fn architecture(self) -> &'a str {
        match self {
            Self::For(architecture) => architecture,
            Self::OtherLayout => THIS_MACHINES,
        }
    }

    fn path(self) -> PathBuf {
        let name = match self {
            Self::For(THIS_MACHINES) => "interceptor.o".to_owned(),
            Self::For(architecture) => format!("interceptor-{architecture}.o"),
            Self::OtherLayout => "interceptor-other-layout.o".to_owned(),
        };
        paths::target().join(DIR).join(name)
    }
}

/// Builds the product's object for this machine.
pub(crate) fn run() -> Result<()> {
    run_variant(Variant::For(THIS_MACHINES)).map(drop)
}

/// Builds an object; returns its path.
pub(crate) fn run_variant(variant: Variant<'_>) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let llvm_major = toolchain.llvm_major()?;
    let linker = bpf_linker::ensure(&llvm_major)?;
    let mut compile = cargo_for(variant.architecture(), toolchain, "build");
    compile.args(variant.features(PACKAGE));
    exec(compile.env("PATH", paths::path_with(&linker)?))?;
    let built = target_dir().join(TARGET).join("release").join(PACKAGE);
    let object = variant.path();
    install(&object, &without_dwarf(&built, &llvm_major)?)?;
    Ok(object)
}

/// Builds an object, then the crates that embed it by `build`. The first object of a clone is built beside
/// them: only the last crates need it, and building it leaves processors idle.
///
/// (Not a later one: cargo would look at the earlier object, before the new one is there.)
pub(crate) fn run_before(
    variant: Variant<'_>,
    build: impl FnOnce(Pace) -> Result<()>,
) -> Result<()> {
    if variant.path().exists() {
        run_variant(variant)?;
        return build(Pace::Usual);
    }
    let lock = lock()?;
    thread::scope(|scope| {
        let object = scope.spawn(move || {
            let object = run_variant(variant);
            drop(lock);
            object
        });
        let result = build(Pace::OneJobWaits);
        // Its error is the cause of the other.
        match object.join() {
            Ok(object) => object?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        result
    })
}

/// How a build proceeds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Usual,
    /// One of cargo's jobs, the script that waits for the object, does nothing.
    OneJobWaits,
}

fn lock() -> Result<File> {
    let dir = paths::target().join(DIR);
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
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
        // BTF is generated from it.
        ("DEBUG", "2"),
        // bpf-linker does it.
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
        // aya-ebpf selects the registers and kernel types of a probe by this.
        &format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Clink-arg=--btf",
        // The default has no atomics that return the old value. Kernel 5.12.
        "-Ctarget-cpu=v3",
    ]
    .join("\x1f")
}

/// Separate from the host's, which other flags would invalidate.
fn target_dir() -> PathBuf {
    paths::target().join("ebpf-build")
}

/// The object with its BTF, without DWARF, which is four fifths of its size.
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

/// Writes the object only if it differs: a new modification time makes cargo rebuild the crate that
/// embeds it.
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
