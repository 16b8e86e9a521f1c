//! The command line: one file a command.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod attach;
mod check;
mod detach;
mod output;
mod run;
mod status;

/// Takes a pod's traffic to its sidecar proxy with eBPF, by the rules of istio-iptables.
///
/// Outbound TCP goes to the proxy's port 15001, inbound TCP to 15006; the proxy's own traffic is
/// left alone. A pod is named by its network namespace.
#[derive(Parser)]
#[command(name = "interceptor", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 the command line is wrong, 3 a pod is not captured as it should be."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Attach(attach::Attach),
    Run(run::Run),
    Detach(detach::Detach),
    Status(status::Status),
    Check(check::Check),
}

/// Runs the command line that this process was called with.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("interceptor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Attach(attach) => attach.run().map(|()| ExitCode::SUCCESS),
        Command::Run(run) => run.run().map(|()| ExitCode::SUCCESS),
        Command::Detach(detach) => detach.run().map(|()| ExitCode::SUCCESS),
        Command::Status(status) => status.run(),
        Command::Check(check) => check.run(),
    }
}
