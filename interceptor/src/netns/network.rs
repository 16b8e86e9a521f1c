//! The parts of a pod's network that a policy depends on.

use anyhow::Result;
use interceptor_ebpf::{FibGeneration, NetnsState};
use rtnetlink::Handle;

use super::{
    addresses::{self, PodAddress},
    interfaces::{self, PodInterface},
    localhost_routes::{self, LocalhostRoutes},
    netlink,
    route_limits::Limit,
    routes::{self, CopiedRoute, CopiedRoutes},
    tables,
};
use crate::digest;

/// The maximum number of routes of a family, and of interfaces, that are read under the lock: reading
/// them takes a few milliseconds.
const MAX_UNDER_LOCK: usize = 256;

/// Whether the calling thread's network namespace is small enough to be read under the lock.
pub fn is_small() -> Result<bool> {
    tables::are_at_most(MAX_UNDER_LOCK)
}

/// A network that is read without the lock, because reading it takes long.
#[derive(Clone, Copy, Debug)]
pub struct Unread {
    /// Whether the pod's IPv6 is captured, if that is decided already.
    pub ipv6: Option<bool>,
    /// Otherwise: whether any IPv6 address decides, not only the first address.
    pub dual_stack: bool,
    /// The state of the network namespace before.
    pub state: NetnsState,
}

impl Unread {
    /// Reads the calling thread's network namespace.
    pub fn read(self) -> Result<PodNetwork> {
        netlink::run(async |handle| {
            let ipv6 = if let Some(decided) = self.ipv6 {
                decided
            } else {
                let addresses = addresses::list(&handle).await?;
                addresses::captures_ipv6(&addresses, self.dual_stack)?
            };
            PodNetwork::read(&handle, ipv6, self.state).await
        })
    }
}

/// A snapshot of a pod's network.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    /// Whether the pod's IPv6 is captured.
    pub ipv6: bool,
    /// The pod's interfaces.
    pub interfaces: Vec<PodInterface>,
    /// The pod's addresses.
    pub addresses: Vec<PodAddress>,
    /// The pod's routes.
    pub routes: Vec<CopiedRoute>,
    /// Why the copied routes are incomplete, if they are.
    pub limits: Vec<Limit>,
    /// The state of the network namespace before the routes were read.
    pub state: NetnsState,
    /// The interfaces through which localhost is local too.
    pub localhost: LocalhostRoutes,
}

impl PodNetwork {
    /// Reads the calling thread's network namespace, which was in `state` before: a change during the
    /// read makes the copy stale, not wrong.
    pub async fn read(netlink: &Handle, ipv6: bool, state: NetnsState) -> Result<Self> {
        let interfaces = interfaces::list(netlink).await?;
        let addresses = addresses::list(netlink).await?;
        let CopiedRoutes { routes, limits } = routes::copy(netlink, &addresses, ipv6).await?;
        Ok(Self {
            ipv6,
            interfaces,
            addresses,
            routes,
            limits,
            state,
            localhost: localhost_routes::read()?,
        })
    }

    /// The state of the routing tables, by which the programs check whether the routes are unchanged.
    /// None for a family with incomplete routes, which therefore refuse no connection.
    #[must_use]
    pub fn fib(&self) -> FibGeneration {
        let is_limited = |ipv6| self.limits.iter().any(|limit| limit.ipv6 == ipv6);
        let mut fib = self.state.fib;
        if is_limited(false) {
            fib = fib.without_v4();
        }
        if is_limited(true) {
            fib = fib.without_v6();
        }
        fib
    }

    /// A digest of the interfaces, addresses and routes, without the generation of the routing tables.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let text = format!(
            "{:?} {:?} {:?} {:?}",
            self.interfaces,
            self.addresses,
            self.routes,
            (&self.limits, &self.localhost)
        );
        digest::of(text.as_bytes())
    }
}
