//! Changes of a network namespace's interfaces, addresses, routes and rules, as they happen.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream::BoxStream};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::{runtime, time};

use super::Netns;

/// What tells of changes that a copy of the pod's network must follow.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Netconf,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

/// Changes come in flocks: a new address brings routes, a new interface both.
const QUIET: Duration = Duration::from_millis(20);

/// How long a change waits for quiet at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many times as long as following a change took the next one waits at least: a pod whose routes
/// change all the time takes a tenth of one processor, whatever it has.
const REST: u32 = 9;

/// The longest such wait.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The first wait after a failure to watch; each later one is twice as long.
const RETRY: Duration = Duration::from_millis(200);

/// The longest wait after failures.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// How long to wait between attempts to watch.
#[derive(Debug, Default)]
pub struct Pause {
    last: Duration,
}

impl Pause {
    /// The next wait, after an attempt that has gone well for so long.
    pub fn after(&mut self, lasted: Duration) -> Duration {
        self.last = if lasted > LONGEST_RETRY {
            // The kernel has dropped messages, of too many changes at once.
            Duration::ZERO
        } else {
            (self.last * 2).clamp(RETRY, LONGEST_RETRY)
        };
        self.last
    }
}

/// Watches a network namespace.
pub struct Changes {
    messages: BoxStream<'static, ()>,
    // The connection ends with its last handle.
    _handle: Handle,
}

impl Changes {
    /// Begins to watch: what changes from now on is not missed. Must be called in a runtime.
    pub fn watch(netns: &Netns) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let (connection, handle, messages) = netns.run(|| {
            let _in_runtime = runtime.enter();
            new_multicast_connection(&GROUPS).context("cannot watch for changes")
        })?;
        tokio::spawn(connection);
        let messages = messages.map(drop).boxed();
        Ok(Self {
            messages,
            _handle: handle,
        })
    }

    /// Waits until something has changed and it is quiet again, for a moment; and longer where following
    /// the last change took long.
    pub async fn next(&mut self, took: Duration) -> Result<()> {
        wait(&mut self.messages, took).await
    }
}

async fn wait(messages: &mut BoxStream<'static, ()>, took: Duration) -> Result<()> {
    let rested = time::Instant::now() + (took * REST).min(LONGEST_REST);
    message(messages).await?;
    let last = (time::Instant::now() + PATIENCE).max(rested);
    loop {
        let now = time::Instant::now();
        // What comes meanwhile is taken from the socket, whose room is bounded.
        let quiet = (now + QUIET).max(rested);
        if now >= last || time::timeout_at(quiet, message(messages)).await.is_err() {
            return Ok(());
        }
    }
}

async fn message(messages: &mut BoxStream<'static, ()>) -> Result<()> {
    let message = messages.next().await;
    message.context("the kernel no longer tells of changes")
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// What changes every few milliseconds.
    fn flapping() -> BoxStream<'static, ()> {
        stream::unfold((), |()| async {
            time::sleep(QUIET / 4).await;
            Some(((), ()))
        })
        .boxed()
    }

    async fn waited(took: Duration) -> Duration {
        let begun = time::Instant::now();
        wait(&mut flapping(), took).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test]
    async fn what_takes_long_to_follow_is_followed_more_seldom() {
        let took = Duration::from_millis(80);
        assert!(waited(took).await >= REST * took);
    }

    #[tokio::test]
    async fn a_change_that_is_followed_at_once_waits_for_quiet_only() {
        let begun = time::Instant::now();
        let mut one = stream::iter([()]).chain(stream::pending()).boxed();
        wait(&mut one, Duration::ZERO).await.unwrap();
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn what_cannot_be_watched_is_tried_more_and_more_seldom() {
        let mut pause = Pause::default();
        assert_eq!(pause.after(Duration::ZERO), RETRY);
        assert_eq!(pause.after(Duration::ZERO), 2 * RETRY);
        let last = (0..100).map(|_| pause.after(Duration::ZERO)).last();
        assert_eq!(last, Some(LONGEST_RETRY));
        assert_eq!(pause.after(2 * LONGEST_RETRY), Duration::ZERO);
        assert_eq!(pause.after(Duration::ZERO), RETRY);
    }
}
