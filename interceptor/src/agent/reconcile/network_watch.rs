//! Copies changes of a captured pod's interfaces, addresses, routes and rules into its policy.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::worker::Capture;
use crate::{
    agent::{backoff::Backoff, telemetry::metrics::Metrics},
    dataplane::attach::Attached,
    netns::{
        Netns,
        changes::{Changes, WatchBackoff},
    },
};

/// Between attempts to refresh the copy of a pod's network.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Watches a pod's network until the pod is detached.
///
/// This needs one socket in the pod's network namespace, and does not wake up while nothing changes.
pub async fn watch_until_detached(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) {
    let mut backoff = WatchBackoff::default();
    loop {
        let start = Instant::now();
        let Err(error) = watch(capture, metrics, netns).await else {
            return;
        };
        let netns = netns.path().display();
        debug!(%netns, "network watch ended, restarting it: {error:#}");
        sleep(backoff.after(start.elapsed())).await;
    }
}

/// Returns when the pod is detached, and fails if its network cannot be watched.
async fn watch(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) -> Result<()> {
    let mut changes = Changes::watch(netns).inspect_err(|error| {
        warn!("cannot watch addresses and routes, polling instead: {error:#}");
    });
    // The first refresh covers changes between the attach and the watch.
    while let Some(took) = refresh(capture, metrics, netns).await {
        match &mut changes {
            Ok(changes) => changes.next(took).await?,
            Err(_) => return changes.map(drop),
        }
    }
    Ok(())
}

/// Refreshes the copy of the pod's network, with retries. Returns how long the last attempt took, or
/// `None` if the pod is not attached.
async fn refresh(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) -> Option<Duration> {
    let mut failures = 0_u32;
    let mut stale = None;
    loop {
        match capture.refresh(netns.clone()).await {
            Ok((attached, took)) => {
                if attached == Some(Attached::Refreshed) {
                    debug!("refreshed addresses and routes");
                }
                return attached.map(|_| took);
            }
            Err(error) => {
                stale.get_or_insert_with(|| metrics.stale_routes());
                warn!("cannot refresh addresses and routes, retrying: {error:#}");
            }
        }
        sleep(BACKOFF.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}
