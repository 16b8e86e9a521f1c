//! `cargo xtask build`: the interceptor binary.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf::{self, Pace, THIS_MACHINES, Variant},
    command::{cargo, exec, with_lower_priority},
    paths,
};

/// Selects the packages of each development build and of the tests. cargo enables the features that all
/// selected packages use together: with another selection it would compile most crates again.
/// (The fuzz targets enable features of ours that nothing else may have.)
pub(crate) const PACKAGES: [&str; 3] = ["--workspace", "--exclude", "interceptor-fuzz"];

/// The programs that tests, demos and the soak start.
pub(crate) const TEST_PROGRAMS: &str = "interceptor-test-*";

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

/// Builds a development binary with another layout of policies and listeners, for tests of upgrades;
/// returns its path. (For cargo it is the same binary as [`development`]'s. It is moved, so that no test
/// takes it for that one.)
pub(crate) fn other_layout() -> Result<PathBuf> {
    let binary = build_development(Variant::OtherLayout, &[])?;
    let moved = binary.with_file_name("interceptor-other-layout");
    fs::rename(&binary, &moved).with_context(|| format!("cannot write {}", moved.display()))?;
    Ok(moved)
}

/// Builds the BPF object and a development binary around it; returns the binary's path.
pub(crate) fn development() -> Result<PathBuf> {
    build_development(Variant::For(THIS_MACHINES), &[])
}

/// The binary to test: `INTERCEPTOR_BIN`, or a development build, because a release build takes minutes
/// more.
pub(crate) fn tested() -> Result<PathBuf> {
    tested_with(&[])
}

/// The same, and builds these programs of the tests.
pub(crate) fn tested_with(programs: &[&str]) -> Result<PathBuf> {
    let Some(binary) = env::var_os("INTERCEPTOR_BIN") else {
        return build_development(Variant::For(THIS_MACHINES), programs);
    };
    if !programs.is_empty() {
        exec(&mut development_build(programs))?;
    }
    // Tests have other working directories.
    fs::canonicalize(&binary).with_context(|| {
        format!(
            "INTERCEPTOR_BIN={}: name the binary to test, or unset the variable to build one",
            Path::new(&binary).display()
        )
    })
}

fn build_development(variant: Variant<'_>, programs: &[&str]) -> Result<PathBuf> {
    build_ebpf::run_before(variant, |pace| {
        let mut build = development_build(&[&["interceptor"], programs].concat());
        build.args(variant.features("interceptor"));
        if pace == Pace::OneJobWaits {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            build.args(["--jobs", &(processors + 1).to_string()]);
            // Everything ends with the crates that wait for the object.
            build = with_lower_priority(&build);
        }
        exec(&mut build)
    })?;
    Ok(built("interceptor"))
}

fn development_build(programs: &[&str]) -> Command {
    let mut build = cargo("build");
    build.args(PACKAGES);
    for program in programs {
        build.args(["--bin", program]);
    }
    build
}

/// The path of a program of a development build.
pub(crate) fn built(program: &str) -> PathBuf {
    paths::cargo_target().join("debug").join(program)
}
