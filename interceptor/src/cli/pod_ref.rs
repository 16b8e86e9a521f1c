//! How a command names a captured pod.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{dataplane::Dataplane, netns::NetnsSpec, pod_name::PodName};

/// A captured pod: by its name, or by its network namespace.
#[derive(Args)]
#[group(id = "pod_ref", multiple = false)]
pub(super) struct PodRef {
    /// The name of a pod that the node agent has captured: NAMESPACE/NAME or NAME.NAMESPACE
    #[arg(value_name = "POD")]
    pod: Option<PodName>,

    /// The pod's network namespace: a path, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: Option<NetnsSpec>,
}

impl PodRef {
    /// The pod's network namespace; nothing if none is named.
    pub(super) fn netns(&self) -> Result<Option<NetnsSpec>> {
        match &self.pod {
            Some(name) => find(name).map(Some),
            None => Ok(self.netns.clone()),
        }
    }
}

/// The network namespace of the pod with this name.
pub(super) fn find(name: &PodName) -> Result<NetnsSpec> {
    Dataplane::new().named(name)?.with_context(|| {
        format!(
            "no captured pod of this node is named {name}: `interceptor status` lists them. A pod that \
             was attached by a command has no name: use --netns"
        )
    })
}
