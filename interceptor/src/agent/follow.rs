//! Following a captured pod's interfaces, addresses, routes and rules for as long as it is there.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, sleep};
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

/// Follows until the pod is no longer attached.
///
/// One socket in the pod's network namespace, and no wake-up while nothing changes.
pub async fn follow(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) {
    let mut pause = Pause::default();
    loop {
        let begun = Instant::now();
        let Err(error) = watch(capture, metrics, netns).await else {
            return;
        };
        let netns = netns.path().display();
        debug!(%netns, "changes of the pod's network are asked for anew: {error:#}");
        sleep(pause.after(begun.elapsed())).await;
    }
}

/// Follows until the pod is no longer attached; fails where changes are not told, or no longer.
async fn watch(capture: &Capture, metrics: &Metrics, netns: &Arc<Netns>) -> Result<()> {
    let mut changes = Changes::watch(netns).inspect_err(|error| {
        warn!("changed addresses or routes are not told, and looked at now and then: {error:#}");
    });
    // What has changed between the attach and the watch.
    while renew(capture, metrics, netns).await {
        match &mut changes {
            Ok(changes) => changes.next().await?,
            Err(_) => return changes.map(drop),
        }
    }
    Ok(())
}

/// How long to wait between attempts to watch.
#[derive(Debug, Default)]
struct Pause {
    last: Duration,
}

impl Pause {
    /// The next wait, after an attempt that has gone well for so long.
    fn after(&mut self, lasted: Duration) -> Duration {
        self.last = if lasted > LONGEST {
            // The kernel has dropped messages, of too many changes at once.
            Duration::ZERO
        } else {
            (self.last * 2).clamp(RETRY, LONGEST)
        };
        self.last
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_watched_is_tried_more_and_more_seldom() {
        let mut pause = Pause::default();
        assert_eq!(pause.after(Duration::ZERO), RETRY);
        assert_eq!(pause.after(Duration::ZERO), 2 * RETRY);
        let last = (0..100).map(|_| pause.after(Duration::ZERO)).last();
        assert_eq!(last, Some(LONGEST));
        assert_eq!(pause.after(2 * LONGEST), Duration::ZERO);
        assert_eq!(pause.after(Duration::ZERO), RETRY);
    }
}
