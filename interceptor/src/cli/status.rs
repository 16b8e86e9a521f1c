//! `interceptor status`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{
    output::{json, yaml},
    pod_ref::PodRef,
};
use crate::{
    host,
    status::{self, PodStatus},
    stdio,
};

mod age;
mod connections;
mod list;
mod pod;
mod settings;
mod state;

/// Exit code if a captured pod has a warning.
const DEGRADED: u8 = 3;

/// What to do about a pod's changed network.
const NETWORK_CHANGED: &str = "its interfaces, addresses or routes have changed since the attach: \
                               attach it again, or use `interceptor run`, which follows changes";

/// Show captured pods and their settings: all in a table, or one on a screen
///
/// A pod's state is `captured`, `no listener` (the proxy does not listen, so captured connections are
/// refused), `outdated` (its network has changed since the attach) or `warning`. Exits with 3 if a pod
/// has a warning, which the output shows.
#[derive(Args)]
#[command(after_help = "\
Examples:
  All captured pods of this node; with all settings:
    interceptor status
    interceptor status -o wide
  One pod:
    interceptor status shop/web-0
    interceptor status --netns 4711
  The names of the pods whose proxy does not receive outbound connections:
    interceptor status -o json | jq -r '.[] | select(.outbound_listeners == 0) | .pod.name'")]
pub(super) struct Status {
    // Without one: all pods.
    #[command(flatten)]
    pod: PodRef,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How pods are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table of all pods; a screen for one.
    #[default]
    Text,
    /// A table with all settings.
    Wide,
    /// One JSON list for programs.
    Json,
    /// The same list as YAML.
    Yaml,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let netns = self.pod.netns()?;
        let pods = status::read(netns.as_ref())?;
        print(&pods, self.output, netns.is_some())
    }
}

/// Prints pods, all or one, and returns the exit code.
pub(super) fn print(pods: &[PodStatus], output: Output, one: bool) -> Result<ExitCode> {
    stdio::print(&match (output, pods) {
        (Output::Json, _) => json(&pods)?,
        (Output::Yaml, _) => yaml(&pods)?,
        (_, []) if one => "The pod is not captured.\n".to_owned(),
        (_, []) => "No pod is captured.\n".to_owned(),
        (Output::Text, [pod]) if one => pod::screen(pod),
        (Output::Text, _) => list::narrow(pods) + &list::problems(pods),
        (Output::Wide, _) => list::wide(pods) + &list::problems(pods),
    })?;
    let degraded = pods.iter().any(|pod| !pod.warnings.is_empty());
    Ok(ExitCode::from(if degraded { DEGRADED } else { 0 }))
}
