//! `cargo xtask fuzz`: libFuzzer on the parsers of untrusted input.

use std::{fs, path::PathBuf, sync::Mutex, thread};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    apt::{self, Need},
    command::{cargo, exec, say},
    paths,
};

mod outcome;
mod target;

use outcome::Outcome;
use target::Target;

const AFTER_HELP: &str = "\
Targets are the files of fuzz/fuzz_targets. Inputs that reach new code are kept in
target/fuzz/corpus, and the next run starts with them and with those of fuzz/corpus.

Exit code: 0 without a finding; 1 with one, or if a target cannot be built. A finding is
printed with its input, which is kept in fuzz/artifacts, and a command that repeats it";

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// Only these targets, separated by commas
    #[arg(long, value_name = "TARGETS", value_delimiter = ',')]
    only: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// How many targets run at a time, one thread each
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Build without optimization, which is much faster after a build of the tests: for CI
    #[arg(long)]
    unoptimized: bool,
}

/// Builds the targets and runs them.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.seconds > 0, "--seconds 0: give at least 1");
    ensure!(options.jobs > 0, "--jobs 0: give at least 1");
    let names = selected(&options.only)?;
    apt::ensure(&[Need::new("c++", "g++")])?;
    let programs = build(&names, options.unoptimized)?;
    let targets: Vec<_> = names
        .iter()
        .map(|name| Target::new(name, &programs))
        .collect();
    say(&format!(
        "{} target(s) for {} s each, {} at a time",
        targets.len(),
        options.seconds,
        options.jobs
    ));
    let outcomes = run_all(&targets, options)?;
    println!("\n{}", outcome::table(&outcomes));
    let findings: Vec<_> = outcomes.iter().filter_map(Outcome::finding).collect();
    for finding in &findings {
        println!("\n{finding}");
    }
    if !findings.is_empty() {
        bail!("{} target(s) with a finding", findings.len());
    }
    Ok(())
}

/// All targets, or those that are named.
fn selected(only: &[String]) -> Result<Vec<String>> {
    let all = all()?;
    if let Some(unknown) = only.iter().find(|name| !all.contains(name)) {
        bail!("--only {unknown}: the targets are {}", all.join(", "));
    }
    Ok(if only.is_empty() { all } else { only.to_vec() })
}

fn all() -> Result<Vec<String>> {
    let dir = directory().join("fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

/// The directory of the targets.
fn directory() -> PathBuf {
    paths::root().join("fuzz")
}

/// For the inputs that are found, the logs and the optimized targets.
fn output_dir() -> PathBuf {
    paths::target().join("fuzz")
}

/// Builds the targets; returns the directory with them.
fn build(names: &[String], unoptimized: bool) -> Result<PathBuf> {
    let mut build = cargo("build");
    build
        // Its `.cargo/config.toml` has the profile, and the wrapper that adds libFuzzer's flags.
        .current_dir(directory())
        .arg("--workspace")
        .args(names.iter().flat_map(|name| ["--bin", name]))
        // No target loads the BPF programs.
        .env("INTERCEPTOR_EBPF", "/dev/null");
    if unoptimized {
        exec(&mut build)?;
        return Ok(paths::cargo_target().join("debug"));
    }
    exec(build.args(["--release", "--target-dir"]).arg(output_dir()))?;
    Ok(output_dir().join("release"))
}

/// Runs the targets, some at a time. The outcomes are in the order of the targets.
fn run_all(targets: &[Target], options: &Options) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(targets.iter().enumerate());
    let next = || waiting.lock().ok()?.next();
    let work = || -> Result<Vec<_>> {
        std::iter::from_fn(next)
            .map(|(index, target)| Ok((index, target.run(options.seconds)?)))
            .collect()
    };
    let mut outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>>>()
    })?
    .concat();
    outcomes.sort_by_key(|(index, _)| *index);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
