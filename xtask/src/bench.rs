//! `cargo xtask bench`: what interception costs, against none and against iptables.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    apt::{self, Need},
    build,
    command::{cargo, exec},
    envoy, kubectl, paths, test,
};

/// The benchmark, who holds network namespaces for it, and who cleans up after it.
const PROGRAMS: [&str; 3] = ["bench", "interceptor-test-actor", "interceptor-test-sweep"];

/// What to measure, and where the results go.
#[derive(Args)]
pub(crate) struct Options {
    /// Short and rough, for CI; goes into target/bench
    #[arg(long)]
    quick: bool,
    /// Only these workloads, separated by commas; goes into target/bench
    #[arg(long)]
    only: Option<String>,
    /// Directory for the results instead of docs/bench
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Builds all and measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        apt::is_root()?,
        "the benchmark loads BPF programs: run this as root"
    );
    test::prepare()?;
    apt::ensure(&[Need::new("wrk", "wrk")])?;
    let (envoy, interceptor) = (envoy::ensure()?, build::run()?);
    let programs = PROGRAMS.iter().flat_map(|program| ["--bin", program]);
    exec(
        cargo("build")
            .args(["--release", "--package", "interceptor-bench"])
            .args(["--package", "interceptor-tests"])
            .args(programs),
    )?;
    let mut bench = cargo("run");
    bench
        .args(["--quiet", "--release", "--package", "interceptor-bench"])
        .args(["--bin", "bench", "--", "--output"])
        .arg(options.folder())
        .env("INTERCEPTOR_BIN", interceptor)
        .env("KUBECTL_BIN", kubectl::ensure()?)
        .env("ENVOY_BIN", envoy);
    if options.quick {
        bench.arg("--quick");
    }
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    exec(&mut bench)
}

impl Options {
    /// The docs hold whole runs only.
    fn folder(&self) -> PathBuf {
        match &self.output {
            Some(folder) => folder.clone(),
            None if self.quick || self.only.is_some() => paths::target().join("bench"),
            None => paths::root().join("docs/bench"),
        }
    }
}
