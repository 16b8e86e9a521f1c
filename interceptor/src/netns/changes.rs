//! Changes of a network namespace's interfaces, addresses, routes and rules, as they happen.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
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

    /// Waits until something has changed and it is quiet again, for a moment.
    pub async fn next(&mut self) -> Result<()> {
        if self.messages.next().await.is_none() {
            bail!("the kernel no longer tells of changes");
        }
        let last = time::Instant::now() + PATIENCE;
        while time::Instant::now() < last
            && let Ok(Some(())) = time::timeout(QUIET, self.messages.next()).await
        {}
        Ok(())
    }
}
