//! `interceptor agent`

use anyhow::Result;
use clap::Args;

use super::log;
use crate::agent::{options::AgentOptions, run};

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
        log::init(&self.options.log_level, self.options.log_as_json)
    }
}
