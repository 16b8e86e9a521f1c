//! What of a pod's network a policy depends on.

use anyhow::Result;
use interceptor_ebpf::FibGeneration;
use rtnetlink::Handle;

use super::{
    addresses::{self, PodAddress},
    interfaces::{self, PodInterface},
    routes::{self, Answer},
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
    /// The state of the tables when the routing was asked. `None` never matches: routes do not
    /// refuse then.
    pub fib: Option<FibGeneration>,
}

impl PodNetwork {
    /// Asks for the network of the calling thread's network namespace, whose routing tables were in
    /// the state `fib` before: what changes meanwhile makes the copy stale, not wrong.
    pub async fn read(netlink: &Handle, ipv6: bool, fib: Option<FibGeneration>) -> Result<Self> {
        let interfaces = interfaces::list(netlink).await?;
        let addresses = addresses::list(netlink).await?;
        let routes = routes::ask(netlink, &addresses, ipv6).await?;
        Ok(Self {
            ipv6,
            interfaces,
            addresses,
            routes,
            fib,
        })
    }

    /// A digest of the interfaces, addresses and routes, whatever their tables' generation.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let text = format!(
            "{:?} {:?} {:?}",
            self.interfaces, self.addresses, self.routes
        );
        digest::of(text.as_bytes())
    }
}
