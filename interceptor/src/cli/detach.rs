//! `interceptor detach`

use std::path::Path;

use anyhow::Result;
use clap::{ArgGroup, Args};

use super::pod_ref::PodRef;
use crate::{
    dataplane::{Dataplane, detach::Detached},
    host,
    netns::Netns,
    stdio::message,
};

/// Stop capturing a pod's traffic
///
/// Removes everything that attach has created. Open connections stay open. A pod that is not
/// captured is not an error.
#[derive(Args)]
#[command(group = ArgGroup::new("which").args(["pod", "netns", "all"]).required(true))]
pub(super) struct Detach {
    #[command(flatten)]
    pod: PodRef,

    /// All captured pods on this machine
    #[arg(long, conflicts_with = "pod_ref")]
    all: bool,
}

impl Detach {
    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let Some(spec) = self.pod.netns()? else {
            let count = Dataplane::new().detach_all()?;
            message!("interceptor: {count} network namespaces are no longer captured");
            return Ok(());
        };
        let netns = Netns::open(&spec)?;
        report(netns.path(), Dataplane::new().detach(&netns)?);
        Ok(())
    }
}

/// Prints the result of a detach.
pub(super) fn report(netns: &Path, detached: Detached) {
    let state = if detached.was_attached {
        "no longer captured"
    } else {
        "not captured"
    };
    message!("interceptor: {} is {state}", netns.display());
    if detached.keeps_routes {
        message!(
            "interceptor: connections that use TPROXY's routes are still open, so the routes stay \
             until the next detach"
        );
    }
}
