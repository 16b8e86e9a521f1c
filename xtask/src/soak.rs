//! `cargo xtask soak`: connections through real proxies while everything around them changes.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{apt, build, command::display, envoy, kubectl, test};

const EXIT_CODES: &str = "\
Exit code: 0 without a violation; 1 with one, each of which is printed; 2 if the run could not be
completed; 130 if it was interrupted";

/// Options of `cargo xtask soak`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Options {
    /// Duration, without the time in which the connections are opened
    #[arg(long, value_name = "N")]
    minutes: f64,
    /// The number of connections that stay open
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    connections: u32,
    /// Determines the order of everything that happens; default: a new one, which is printed
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Also write the report to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Builds everything, as for the demos, and executes the soak in this process, so that signals and the
/// exit code are the soak's own.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        apt::is_root()?,
        "the soak loads BPF programs: run this as root"
    );
    ensure!(
        options.minutes > 0.0 && options.minutes <= 10_080.0,
        "--minutes {}: give a number above 0, at most 10080 (a week)",
        options.minutes
    );
    test::prepare()?;
    let other_layout = build::other_layout()?;
    let interceptor = build::tested_with(&["soak", build::TEST_PROGRAMS])?;
    let mut soak = Command::new(build::built("soak"));
    soak.args(["--minutes", &options.minutes.to_string()])
        .args(["--connections", &options.connections.to_string()])
        .env("ENVOY_BIN", envoy::ensure()?)
        .env("KUBECTL_BIN", kubectl::ensure()?)
        .env("INTERCEPTOR_OTHER_BIN", other_layout)
        .env("INTERCEPTOR_BIN", interceptor);
    if let Some(seed) = options.seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    if let Some(report) = &options.report {
        soak.arg("--report").arg(report);
    }
    Err(soak.exec()).with_context(|| format!("cannot run `{}`", display(&soak)))
}
