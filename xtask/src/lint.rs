//! `cargo xtask lint`: the static checks of the sources.

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    build_ebpf,
    command::{cargo, exec, say},
    cycles, deny, fmt, links, python_tool,
    toolchain::Toolchain,
    unsafe_code, words,
};

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Format of Rust and TOML files
    Format,
    /// Words that help, messages and docs must not contain (xtask/words.txt)
    Words,
    /// Spelling (typos.toml)
    Spelling,
    /// Links between documents, and to files
    Links,
    /// Import cycles between modules
    Cycles,
    /// Modules with unsafe code, compared with the list of those that may have it
    Unsafe,
    /// Build of the BPF object, which the interceptor crate embeds
    Ebpf,
    /// Clippy on everything that builds for the host
    Clippy,
    /// Clippy on the BPF programs
    ClippyBpf,
    /// Warnings of rustdoc
    Doc,
    /// Licenses, duplicates and sources of the dependencies (deny.toml)
    Dependencies,
    /// Security advisories about the dependencies, and withdrawn versions
    Advisories,
}

impl Step {
    fn run(self) -> Result<()> {
        match self {
            Self::Format => fmt::check(),
            Self::Words => words::check(),
            Self::Spelling => python_tool::check_spelling(),
            Self::Links => links::check(),
            Self::Cycles => cycles::check(),
            Self::Unsafe => unsafe_code::check(),
            Self::Ebpf => build_ebpf::run(),
            Self::Clippy => clippy_host(),
            Self::ClippyBpf => clippy_bpf(),
            Self::Doc => doc(),
            Self::Dependencies => deny::check(),
            Self::Advisories => deny::check_advisories(),
        }
    }
}

/// Runs these checks; all of them, the cheap ones first, if none is given.
pub(crate) fn run(steps: &[Step]) -> Result<()> {
    let steps = if steps.is_empty() {
        Step::value_variants()
    } else {
        steps
    };
    for step in steps {
        let name = step.to_possible_value();
        let name = name.as_ref().map_or("", PossibleValue::get_name);
        say(&format!("lint: {name}"));
        let start = Instant::now();
        step.run().with_context(|| format!("lint: {name}"))?;
        let took = start.elapsed().as_secs_f32();
        say(&format!("lint: {name}: passed in {took:.1} s"));
    }
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
