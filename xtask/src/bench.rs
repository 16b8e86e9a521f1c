//! `cargo xtask bench`: measures the cost of interception, compared with none and with iptables.

use std::{path::PathBuf, process::Command};

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
    /// Measure sidecar injection instead: the function, the command and the webhook under load.
    /// `ISTIO_DIR` may name a checkout of Istio, whose template is used; requires no root
    #[arg(long, conflicts_with = "only")]
    injection: bool,
    /// Only these workloads, separated by commas; writes to target/bench
    #[arg(long)]
    only: Option<String>,
    /// Directory for the results instead of docs/bench
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Builds and runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.injection {
        return injection(options);
    }
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
    let mut bench = bench(options);
    bench
        .env("INTERCEPTOR_BIN", interceptor)
        .env("KUBECTL_BIN", kubectl::ensure()?)
        .env("ENVOY_BIN", envoy);
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    exec(&mut bench)
}

fn injection(options: &Options) -> Result<()> {
    let interceptor = build::run()?;
    let mut bench = bench(options);
    exec(bench.arg("--injection").env("INTERCEPTOR_BIN", interceptor))
}

/// The benchmark, with the options that all kinds have.
fn bench(options: &Options) -> Command {
    let mut bench = cargo("run");
    bench
        .args(["--quiet", "--release", "--package", "interceptor-bench"])
        .args(["--bin", "bench", "--", "--output"])
        .arg(options.results_dir());
    if options.quick {
        bench.arg("--quick");
    }
    bench
}

impl Options {
    /// The docs contain the results of complete runs only.
    fn results_dir(&self) -> PathBuf {
        let is_partial = self.quick || self.only.is_some();
        let bench = match &self.output {
            Some(directory) => return directory.clone(),
            None if is_partial => paths::target().join("bench"),
            None => paths::root().join("docs/bench"),
        };
        if self.injection {
            bench.join("injection")
        } else {
            bench
        }
    }
}
