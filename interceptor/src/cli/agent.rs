//! `interceptor agent`

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::agent::{options::AgentOptions, run};

/// The agent itself logs the API server's errors in plain words: kube's own warnings about them print
/// Rust structures. A filter that names these crates takes precedence.
const KUBE: &str = "kube_client=error,kube_runtime=error";

/// Run the node agent: capture the node's mesh pods before their first container starts
///
/// Watches the node's pods, selects the same ones as istio-cni, and captures each according to its
/// annotations: when the CNI plugin (which the agent installs) calls, or, for pods that are already
/// running, in place. Pods stay captured while no agent runs.
#[derive(Args)]
pub(super) struct Agent {
    #[command(flatten)]
    options: AgentOptions,
}

impl Agent {
    pub(super) fn run(&self) -> Result<()> {
        run::run(self.options.clone())
    }

    /// Configures the log from the options.
    pub(super) fn log(&self) -> Result<()> {
        let level = &self.options.log_level;
        let filter = EnvFilter::try_new(format!("{KUBE},{level}"))
            .with_context(|| format!("--log-level {level}"))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr);
        if self.options.log_as_json {
            log.json().init();
        } else {
            log.with_ansi(io::stderr().is_terminal()).init();
        }
        Ok(())
    }
}
