//! The log of the commands that run as a service.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use anyhow::{Result, anyhow};
use tracing_subscriber::EnvFilter;

/// All commands report the API server's errors in plain words themselves: kube's own messages about
/// them print Rust structures, or no address. A filter that names these crates takes precedence.
const KUBE: &str = "kube_client=off,kube_runtime=error";

/// The variable with the filter of the commands that do not run as a service.
const FILTER: &str = "RUST_LOG";

/// Logs errors to standard error, or what the variable `RUST_LOG` says.
pub(super) fn init_from_environment() {
    let filter = env::var(FILTER).unwrap_or_else(|_unset| "error".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{KUBE},{filter}")))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Logs to standard error, at `level` (--log-level).
pub(super) fn init(level: &str, as_json: bool) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{KUBE},{level}"))
        .map_err(|error| anyhow!("--log-level {level}: {error}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Reported on standard error, which panics if it is closed.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if as_json {
        log.json().init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}
