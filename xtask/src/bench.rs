//! `cargo xtask bench`: measures the cost of interception, compared with none and with iptables.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    apt::{self, Need},
    build,
    command::{cargo, exec},
    envoy, kubectl, paths, test,
};

/// The benchmark, the actor that holds its network namespaces, and the cleanup after it.
const PROGRAMS: [&str; 3] = ["bench", "interceptor-test-actor", "interceptor-test-sweep"];

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Short and imprecise, for CI; writes to target/bench
    #[arg(long)]
    quick: bool,
    /// Only these workloads, separated by commas; writes to target/bench
    #[arg(long)]
    only: Option<String>,
    /// Directory for the results instead of docs/bench
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Builds and runs the benchmark.
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
        .arg(options.results_dir())
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
    /// The docs contain the results of complete runs only.
    fn results_dir(&self) -> PathBuf {
        match &self.output {
            Some(dir) => dir.clone(),
            None if self.quick || self.only.is_some() => paths::target().join("bench"),
            None => paths::root().join("docs/bench"),
        }
    }
}
