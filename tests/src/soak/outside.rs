//! What is outside the pods: a remote server, on the node.

use std::net::SocketAddr;

use anyhow::Result;
use interceptor_testkit::{node::Node, sidecar::launch::LaunchContext, users::ROOT};

use crate::{
    ledger::Ledger,
    traffic::{Job, ServePlan, Via, Worker},
};

/// The remote server's name.
pub(crate) const REMOTE: &str = "remote";
/// Its addresses.
const ADDRESSES: [&str; 2] = ["10.2.0.9", "fd00:2::9"];
/// Its ports.
const PORTS: std::ops::RangeInclusive<u16> = 8000..=8007;
/// Its port that settings exclude from capture at times.
pub(crate) const EXCLUDABLE_PORT: u16 = 8009;

/// Starts the remote server.
pub(crate) fn start(node: &Node, ledger: &Ledger) -> Result<Worker> {
    let plan = ServePlan {
        name: REMOTE.to_owned(),
        ports: PORTS.chain([EXCLUDABLE_PORT]).collect(),
        via: Via::Headers,
    };
    let cgroup = node.cgroup.child("system.slice/soak-remote")?;
    let context = LaunchContext {
        netns: &node.host,
        cgroup: &cgroup,
        user: ROOT,
    };
    Worker::start(
        REMOTE,
        context,
        &Job::Serve(plan),
        ledger.of_visitor(REMOTE),
    )
}

/// Its destinations.
pub(crate) fn destinations() -> Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for ip in ADDRESSES {
        for port in PORTS {
            found.push(SocketAddr::new(ip.parse()?, port));
        }
    }
    Ok(found)
}

/// The destination that settings exclude from capture at times.
pub(crate) fn excludable() -> Result<SocketAddr> {
    Ok(SocketAddr::new(ADDRESSES[0].parse()?, EXCLUDABLE_PORT))
}
