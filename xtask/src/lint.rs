//! `cargo xtask lint`: everything that can be said about the sources without running them.

use std::time::Instant;

use anyhow::Result;

use crate::{
    build_ebpf,
    command::{cargo, exec, say},
    deny, fmt,
    toolchain::Toolchain,
};

/// Runs all the checks, the cheap ones first.
pub(crate) fn run() -> Result<()> {
    step("format", fmt::check)?;
    step(
        "BPF object, which the interceptor crate embeds",
        build_ebpf::run,
    )?;
    step("clippy for the host", clippy_host)?;
    step("clippy for BPF", clippy_bpf)?;
    step("documentation", doc)?;
    step("dependencies", deny::check)
}

fn step(name: &str, check: fn() -> Result<()>) -> Result<()> {
    say(&format!("lint: {name}"));
    let start = Instant::now();
    check()?;
    say(&format!(
        "lint: {name}: fine after {:.1} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// The BPF programs themselves do not build for the host; the library beside them does.
fn clippy_host() -> Result<()> {
    const DENY: [&str; 3] = ["--", "--deny", "warnings"];
    let programs = [
        "--workspace",
        "--exclude",
        "interceptor-ebpf",
        "--all-targets",
    ];
    exec(cargo("clippy").args(programs).args(DENY))?;
    let library = [
        "--package",
        "interceptor-ebpf",
        "--lib",
        "--tests",
        "--all-features",
    ];
    exec(cargo("clippy").args(library).args(DENY))
}

fn clippy_bpf() -> Result<()> {
    let toolchain = Toolchain::find()?;
    toolchain.ensure_clippy()?;
    exec(build_ebpf::cargo(toolchain, "clippy").args(["--lib", "--", "--deny", "warnings"]))
}

fn doc() -> Result<()> {
    exec(
        cargo("doc")
            .args(["--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}
