//! `interceptor uninstall`

use anyhow::Result;
use clap::Args;

use crate::{
    agent::{
        install::{self, CniFolders},
        kubepods::Kubepods,
    },
    dataplane::{Dataplane, record::Record},
    host,
    stdio::message,
};

/// Take the agent's CNI plugin off this node
///
/// For a node whose agent is gone, as a Job or by hand: the plugin's entry leaves the network's
/// configuration, and its binary the node. Pods that start from now on are not captured. Those that
/// are running stay captured until they end, unless --now says otherwise: while there are any, the
/// plugin stays, lets every new pod pass, and takes itself and what is pinned off the node with the
/// last of them. Twice is once.
#[derive(Args)]
pub(super) struct Uninstall {
    /// This node is meant: the machine whose folders these are
    #[arg(long, required = true)]
    node: bool,

    /// Stop capturing running pods as well, and name them. What they send and receive from then on
    /// passes the proxy by, unencrypted where the mesh would encrypt it
    #[arg(long)]
    now: bool,

    #[command(flatten)]
    folders: CniFolders,
}

impl Uninstall {
    pub(super) fn run(&self) -> Result<()> {
        // First of all: a pod that starts meanwhile is not to be captured again.
        let done = install::uninstall(&self.folders)?;
        if done.is_empty() {
            message!("interceptor: the CNI plugin is not on this node");
        }
        tell(done);
        if self.now {
            detach()?;
            // It has stayed for pods that were captured.
            tell(install::uninstall(&self.folders)?);
        }
        Ok(())
    }
}

fn tell(done: Vec<String>) {
    for line in done {
        message!("interceptor: {line}");
    }
}

fn detach() -> Result<()> {
    host::check_root()?;
    host::ensure_bpffs()?;
    let mut dataplane = Dataplane::new();
    match dataplane.attached() {
        Ok(pods) => pods.iter().for_each(|pod| {
            let pod = name(&pod.record);
            message!(
                "interceptor: {pod} is about to be captured no longer: its traffic passes the proxy by"
            );
        }),
        // Whoever cannot be named is detached all the same.
        Err(error) => message!("interceptor: cannot name what is captured: {error:#}"),
    }
    let count = dataplane.detach_all()?;
    message!("interceptor: {count} network namespaces are no longer captured");
    Ok(())
}

/// What people know a pod by: its UID, if the agent has attached it. The path that its network
/// namespace was found by may be a process's that has ended.
fn name(record: &Record) -> String {
    let netns = record.netns.display();
    let cgroup = record.pod_cgroup.as_ref();
    match cgroup.and_then(|cgroup| Kubepods::uid(&cgroup.path)) {
        Some(uid) => format!("pod {uid} ({netns})"),
        None => netns.to_string(),
    }
}
