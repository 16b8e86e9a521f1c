//! `interceptor detach`

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::{
    dataplane::{Dataplane, detach::Detached},
    host,
    netns::{Netns, NetnsSpec},
    stdio::message,
};

/// Stop capturing a pod's traffic
///
/// Removes everything that attach has created. Open connections stay open. A pod that is not
/// captured is not an error.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Detach {
    /// The pod's network namespace: a path, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: Option<NetnsSpec>,

    /// All captured pods on this machine
    #[arg(long)]
    all: bool,
}

impl Detach {
    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let Some(spec) = &self.netns else {
            let count = Dataplane::new().detach_all()?;
            message!("interceptor: {count} network namespaces are no longer captured");
            return Ok(());
        };
        let netns = Netns::open(spec)?;
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
