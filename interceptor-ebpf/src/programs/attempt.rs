//! What a socket of a pod is about to reach: the facts that an outbound verdict hangs on.

use interceptor_ebpf::{
    Address, Destination, InterfaceFlags, Listener, Outbound, PolicyFlags, Route, Transport,
};

use super::{context::SockAddr, pod::Pod};

/// A call that wants to reach a destination: `connect`, or `sendmsg` with an address.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    pod: Pod,
    /// Where it really goes.
    pub(crate) destination: Address,
    /// In host byte order.
    pub(crate) port: u16,
    /// What the socket is bound to; unspecified if it is not.
    pub(crate) bound: Address,
}

impl Attempt {
    #[inline(always)]
    pub(crate) fn of(call: &SockAddr, pod: Pod) -> Self {
        let bound = call.bound_address();
        Self {
            pod,
            destination: effective_destination(call.address(), bound),
            port: call.port(),
            bound,
        }
    }

    /// What the pod's routing does with the destination.
    #[inline(always)]
    pub(crate) fn route(self) -> Option<&'static Route> {
        self.pod.route(self.destination)
    }

    #[inline(always)]
    pub(crate) fn flow(
        self,
        call: &SockAddr,
        transport: Transport,
        route: Option<&Route>,
    ) -> Outbound {
        let via_loopback = route.is_some_and(Route::is_via_loopback);
        Outbound {
            destination: self.destination,
            port: self.port,
            transport,
            source: self.source(route),
            via_loopback,
            by_excluded_interface: self.is_by_excluded_interface(call, route, via_loopback),
            is_marked: self.is_marked(call),
            owner: call.socket().owner(),
        }
    }

    /// Where it comes from: what the socket is bound to, else what routing picks.
    #[inline(always)]
    pub(crate) fn source(self, route: Option<&Route>) -> Address {
        match route {
            Some(route) if self.bound.is_unspecified() => route.source,
            _ => self.bound,
        }
    }

    /// The way out is that of the route, or the interface that the socket is bound to; but to the
    /// pod itself it is always `lo` (`ip_route_output_key_hash_rcu`).
    #[inline(always)]
    fn is_by_excluded_interface(
        self,
        call: &SockAddr,
        route: Option<&Route>,
        via_loopback: bool,
    ) -> bool {
        if !self.pod.policy.flags.contains(PolicyFlags::HAS_INTERFACES) {
            return false;
        }
        match call.sock().bound_interface() {
            bound if bound != 0 && !via_loopback => {
                let flags = self.pod.interface_flags(bound);
                flags.contains(InterfaceFlags::EXCLUDED)
            }
            _ => route.is_some_and(Route::is_by_excluded_interface),
        }
    }

    #[inline(always)]
    fn is_marked(self, call: &SockAddr) -> bool {
        let policy = self.pod.policy;
        policy.flags.contains(PolicyFlags::TPROXY) && call.sock().mark() == policy.mark
    }

    /// The errno with which the kernel would refuse to route, or 0. Told only while the pod's routes
    /// are still what they were when they were copied: else a route that failed may succeed by now,
    /// so the connection is captured, and the proxy meets the kernel's answer.
    #[inline(always)]
    pub(crate) fn routing_error(self, call: &SockAddr, route: Option<&Route>) -> u32 {
        let error = route.map_or(0, |route| route.error_for(self.bound));
        if error == 0 {
            return 0;
        }
        let now = call.socket().fib_generation();
        if self.pod.policy.fib.is_same(&now, self.destination.is_v4()) {
            error.into()
        } else {
            0
        }
    }

    /// What is remembered of the destination when `listener` gets the connection.
    #[inline(always)]
    pub(crate) fn captured_by(self, listener: Listener, route: Option<&Route>) -> Destination {
        Destination {
            address: self.destination,
            port: self.port,
            listener: listener as u8,
            source: route.map_or(0, |route| route.source_index as u8),
        }
    }
}

/// Where a connection to `address` really goes. The unspecified address means this host: what the
/// socket is bound to for IPv4 (`ip_route_output_key_hash_rcu`), localhost otherwise
/// (`tcp_v6_connect`).
#[inline(always)]
fn effective_destination(address: Address, bound: Address) -> Address {
    if !address.is_unspecified() {
        address
    } else if bound.is_unspecified() || !address.is_v4() {
        let mapped = address.is_v4() || (bound.is_v4() && !bound.is_unspecified());
        if mapped {
            Address::LOCALHOST_V4
        } else {
            Address::LOCALHOST_V6
        }
    } else {
        bound
    }
}
