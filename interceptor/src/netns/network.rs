//! What of a pod's network a policy depends on.

use anyhow::Result;
use interceptor_ebpf::{FibGeneration, NetnsState};
use rtnetlink::Handle;

use super::{
    addresses::{self, PodAddress},
    interfaces::{self, PodInterface},
    localhost_routes::LocalhostRoutes,
    route_limits::Limit,
    routes::{self, Answer, Copied},
};
use crate::digest;

/// The network of a pod, as it is at one moment.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    /// Whether the pod's IPv6 is captured.
    pub ipv6: bool,
    /// The pod's interfaces.
    pub interfaces: Vec<PodInterface>,
    /// The pod's addresses.
    pub addresses: Vec<PodAddress>,
    /// The pod's routing.
    pub routes: Vec<Answer>,
    /// What the routing cannot be relied on for.
    pub limits: Vec<Limit>,
    /// The state of the network namespace when the routing was asked.
    pub state: NetnsState,
    /// The interfaces by way of which localhost is local too, as far as that matters.
    pub localhost: LocalhostRoutes,
}

impl PodNetwork {
    /// Asks for the network of the calling thread's network namespace, which was in `state`
    /// before: what changes meanwhile makes the copy stale, not wrong.
    pub async fn read(netlink: &Handle, ipv6: bool, state: NetnsState) -> Result<Self> {
        let interfaces = interfaces::list(netlink).await?;
        let addresses = addresses::list(netlink).await?;
        let Copied { answers, limits } = routes::ask(netlink, &addresses, ipv6).await?;
        Ok(Self {
            ipv6,
            interfaces,
            addresses,
            routes: answers,
            limits,
            state,
            localhost: LocalhostRoutes::default(),
        })
    }

    /// The state of the routing tables by which the programs tell whether the routes are still what
    /// they were: none for a family whose routes cannot be relied on, which refuse nothing then.
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

    /// A digest of the interfaces, addresses and routes, whatever their tables' generation.
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
