//! Changes of a network namespace's interfaces, addresses, routes and rules, as they happen.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream::BoxStream};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::{runtime, time};

use super::Netns;

/// The netlink groups for everything that a copy of the pod's network contains.
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

/// Changes come in bursts: a new address adds routes, a new interface both.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// The longest delay of a change by debouncing.
const MAX_DEBOUNCE: Duration = Duration::from_millis(500);

/// The delay after applying a change, as a multiple of the time that took: a pod whose routes change
/// all the time costs at most a tenth of one processor.
const DELAY_FACTOR: u32 = 9;

/// The longest such delay.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The first delay after a failure to subscribe; each later one is twice as long.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The longest delay after failures.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The delay between attempts to watch.
#[derive(Debug, Default)]
pub(crate) struct WatchBackoff {
    last: Duration,
}

impl WatchBackoff {
    /// The next delay, after a subscription that has lasted this long.
    pub(crate) fn after(&mut self, lasted: Duration) -> Duration {
        self.last = if lasted > MAX_RETRY_DELAY {
            // The kernel has dropped messages, of too many changes at once.
            Duration::ZERO
        } else {
            (self.last * 2).clamp(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        };
        self.last
    }
}

/// Watches a network namespace.
pub(crate) struct Changes {
    messages: BoxStream<'static, ()>,
    // The connection closes with its last handle.
    _handle: Handle,
}

impl Changes {
    /// Starts to watch: no change from now on is missed. Must be called in a runtime.
    pub(crate) fn watch(netns: &Netns) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let (connection, handle, messages) = netns.run(|| {
            let _in_runtime = runtime.enter();
            new_multicast_connection(&GROUPS).context("cannot subscribe to network changes")
        })?;
        tokio::spawn(connection);
        let messages = messages.map(drop).boxed();
        Ok(Self {
            messages,
            _handle: handle,
        })
    }

    /// Waits for a change, then until no more follow for a moment. Waits longer if applying the last
    /// change took long.
    pub(crate) async fn next(&mut self, took: Duration) -> Result<()> {
        wait(&mut self.messages, took).await
    }
}

async fn wait(messages: &mut BoxStream<'static, ()>, took: Duration) -> Result<()> {
    let earliest = time::Instant::now() + (took * DELAY_FACTOR).min(MAX_DELAY);
    message(messages).await?;
    let latest = (time::Instant::now() + MAX_DEBOUNCE).max(earliest);
    loop {
        let now = time::Instant::now();
        // Keep reading while waiting: the socket's buffer is bounded.
        let debounced = (now + DEBOUNCE).max(earliest);
        if now >= latest
            || time::timeout_at(debounced, message(messages))
                .await
                .is_err()
        {
            return Ok(());
        }
    }
}

async fn message(messages: &mut BoxStream<'static, ()>) -> Result<()> {
    let message = messages.next().await;
    message.context("the netlink subscription to changes has ended")
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// A change every few milliseconds.
    fn flapping() -> BoxStream<'static, ()> {
        stream::unfold((), |()| async {
            time::sleep(DEBOUNCE / 4).await;
            Some(((), ()))
        })
        .boxed()
    }

    async fn waited(took: Duration) -> Duration {
        let start = time::Instant::now();
        wait(&mut flapping(), took).await.unwrap();
        start.elapsed()
    }

    #[tokio::test]
    async fn changes_that_take_long_to_apply_are_delayed() {
        let took = Duration::from_millis(80);
        assert!(waited(took).await >= DELAY_FACTOR * took);
    }

    #[tokio::test]
    async fn a_change_that_applies_at_once_is_only_debounced() {
        let start = time::Instant::now();
        let mut one = stream::iter([()]).chain(stream::pending()).boxed();
        wait(&mut one, Duration::ZERO).await.unwrap();
        assert!(start.elapsed() < MAX_DEBOUNCE);
    }

    #[test]
    fn failures_to_watch_are_retried_with_backoff() {
        let mut backoff = WatchBackoff::default();
        assert_eq!(backoff.after(Duration::ZERO), MIN_RETRY_DELAY);
        assert_eq!(backoff.after(Duration::ZERO), 2 * MIN_RETRY_DELAY);
        let last = (0..100).map(|_| backoff.after(Duration::ZERO)).last();
        assert_eq!(last, Some(MAX_RETRY_DELAY));
        assert_eq!(backoff.after(2 * MAX_RETRY_DELAY), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO), MIN_RETRY_DELAY);
    }
}
