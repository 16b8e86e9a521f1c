//! `interceptor uninstall`

use anyhow::Result;
use clap::Args;

use crate::{
    agent::host::kubepods::Kubepods,
    cni::files::{self, CniDirs},
    dataplane::{Dataplane, record::Record},
    host,
    stdio::message,
};

/// Remove the agent's CNI plugin from this node
///
/// For a node whose agent no longer runs, as a Job or by hand. Removes the plugin's entry from the
/// network configuration and its binary from the node. Pods that start afterwards are not captured.
/// Running pods stay captured until they terminate, unless --now is set. While a captured pod runs,
/// the plugin stays and lets every new pod start; with the last captured pod it removes itself and
/// all pins. The command is idempotent.
#[derive(Args)]
pub(super) struct Uninstall {
    /// Required: confirms that this machine is the node to clean up
    #[arg(long, required = true)]
    node: bool,

    /// Also stop capturing running pods, and print their names. Their traffic then bypasses the proxy,
    /// and is not encrypted where the mesh would encrypt it
    #[arg(long)]
    now: bool,

    #[command(flatten)]
    dirs: CniDirs,
}

impl Uninstall {
    pub(super) fn run(&self) -> Result<()> {
        // First, so that a pod that starts in the meantime is not captured again.
        let done = files::uninstall(&self.dirs)?;
        if done.is_empty() {
            message!("interceptor: the CNI plugin is not installed on this node");
        }
        report(done);
        if self.now {
            detach()?;
            // It stayed for the captured pods.
            report(files::uninstall(&self.dirs)?);
        }
        Ok(())
    }
}

fn report(done: Vec<String>) {
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
            message!("interceptor: {pod}: no longer captured; its traffic now bypasses the proxy");
        }),
        // Pods that cannot be named are detached too.
        Err(error) => message!("interceptor: cannot list the captured pods: {error:#}"),
    }
    let count = dataplane.detach_all()?;
    message!("interceptor: {count} network namespaces are no longer captured");
    Ok(())
}

/// The pod's UID if the agent has attached it: the path of its network namespace may name a process that
/// has exited.
fn name(record: &Record) -> String {
    let netns = record.netns.display();
    let cgroup = record.pod_cgroup.as_ref();
    match cgroup.and_then(|cgroup| Kubepods::uid(&cgroup.path)) {
        Some(uid) => format!("pod {uid} ({netns})"),
        None => netns.to_string(),
    }
}
