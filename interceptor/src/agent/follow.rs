//! Following a captured pod's interfaces, addresses, routes and rules for as long as it is there.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{capture::Capture, metrics::Metrics};
use crate::{
    attachment::Attached,
    netns::{Netns, changes::Changes},
};

/// The first wait after a failure; each later one is twice as long.
const RETRY: Duration = Duration::from_millis(200);

/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// Follows until the pod is no longer attached, or its changes are no longer told.
///
/// One socket in the pod's network namespace, and no wake-up while nothing changes.
pub async fn follow(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) -> Result<()> {
    let mut changes = Changes::watch(netns)?;
    // What has changed between the attach and the watch.
    while renew(capture, metrics, netns).await {
        changes.next().await?;
    }
    Ok(())
}

/// Tries until the copy is as the pod's network is. Answers whether the pod is attached.
async fn renew(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) -> bool {
    let mut wait = RETRY;
    let mut stale = None;
    loop {
        match capture.refresh(netns.clone()).await {
            Ok(Some(Attached::Refreshed)) => {
                debug!("changed addresses or routes are followed");
                return true;
            }
            Ok(attached) => return attached.is_some(),
            Err(error) => {
                stale.get_or_insert_with(|| metrics.stale_routes());
                warn!("cannot follow changed addresses or routes yet: {error:#}");
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST);
    }
}
