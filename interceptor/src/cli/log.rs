//! The log of the commands that run as a service.

use std::io::{self, IsTerminal as _};

use anyhow::{Result, anyhow};
use tracing_subscriber::EnvFilter;

/// These commands log the API server's errors in plain words themselves: kube's own warnings about
/// them print Rust structures. A filter that names these crates takes precedence.
const KUBE: &str = "kube_client=error,kube_runtime=error";

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
