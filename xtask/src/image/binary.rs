//! The static binary: it runs in an otherwise empty image, and as a CNI plugin on any host.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::Architecture;
use crate::{
    apt::{self, Need},
    build_ebpf::{self, Variant},
    command::{cargo, exec, read, say},
    paths,
    toolchain::Toolchain,
};

/// Builds the binary, with the BPF object inside.
pub(super) fn build(architecture: Architecture) -> Result<Vec<u8>> {
    ensure_c_compiler(architecture)?;
    let object = build_ebpf::run_variant(Variant::For(architecture.name()))?;
    let target = architecture.target();
    let mut compile = compiler(architecture)?;
    compile
        .args(["--locked", "--release", "--package", "interceptor"])
        .args(["--target", target, "--target-dir"])
        .arg(paths::cargo_target())
        .env("INTERCEPTOR_EBPF", object)
        // Also the C library: glibc, which Debian has for both architectures. Its name service
        // would load the host's modules, but without an nsswitch.conf in the image it uses only
        // built-in files and DNS.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    exec(compile.env(linker_variable(target), linker(architecture)?))?;
    let binary = paths::cargo_target()
        .join(target)
        .join("release/interceptor");
    check_static(&binary)?;
    fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))
}

/// The cargo of a toolchain with the architecture's standard library; if none is installed, of one that
/// builds it.
fn compiler(architecture: Architecture) -> Result<Command> {
    let libraries = read(Command::new("rustc").args([
        "--print=target-libdir",
        "--target",
        architecture.target(),
    ]))?;
    if Path::new(libraries.trim()).exists() {
        return Ok(cargo("build"));
    }
    say(&format!(
        "no standard library for {architecture} is installed: building it"
    ));
    let mut build = Toolchain::find()?.cargo("build");
    build.args(["-Z", "build-std=std"]);
    Ok(build)
}

/// `ring`, which has assembly and C, requires the compiler; Rust requires the linker.
fn ensure_c_compiler(architecture: Architecture) -> Result<()> {
    if architecture == Architecture::of_this_machine()? {
        return apt::ensure(&[Need::new("cc", "gcc"), Need::new("readelf", "binutils")]);
    }
    let gnu = architecture.gnu_name();
    let library = format!("/usr/{}/lib/libc.a", linker_prefix(architecture));
    apt::ensure(&[
        Need::new(linker(architecture)?, format!("gcc-{gnu}")),
        Need::new(
            library,
            format!("libc6-dev-{}-cross", architecture.oci_name()),
        ),
        Need::new("readelf", "binutils"),
    ])
}

fn linker(architecture: Architecture) -> Result<String> {
    Ok(if architecture == Architecture::of_this_machine()? {
        "cc".to_owned()
    } else {
        format!("{}-gcc", linker_prefix(architecture))
    })
}

/// The prefix of the compiler's programs and directory.
fn linker_prefix(architecture: Architecture) -> String {
    format!("{}-linux-gnu", architecture.name())
}

fn linker_variable(target: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}

/// A binary that requires a loader would not run in the image, which has none.
fn check_static(binary: &Path) -> Result<()> {
    let segments = read(
        Command::new("readelf")
            .args(["--wide", "--program-headers"])
            .arg(binary),
    )?;
    ensure!(
        !segments.contains("INTERP"),
        "{} is not static: it requires a loader",
        binary.display()
    );
    Ok(())
}
