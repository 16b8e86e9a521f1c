//! `interceptor agent`

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::agent::{options::AgentOptions, run};

/// The agent says itself, in words, what the API server answers: kube's own warnings about the same
/// have Rust structures in them. A level that names these crates wins.
const KUBE: &str = "kube_client=error,kube_runtime=error";

/// Serve a Kubernetes node: have its mesh pods captured before their first container starts
///
/// Watches the node's pods, picks those that istio-cni would pick, and captures each as its
/// annotations say: asked by the CNI plugin that it installs, or where the pod stands. What is
/// captured stays so while no agent runs.
#[derive(Args)]
pub(super) struct Agent {
    #[command(flatten)]
    options: AgentOptions,
}

impl Agent {
    pub(super) fn run(&self) -> Result<()> {
        run::run(self.options.clone())
    }

    /// Logs as the options say.
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
