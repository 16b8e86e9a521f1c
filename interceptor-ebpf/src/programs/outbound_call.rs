//! What a socket of a pod is about to reach: the facts that an outbound verdict hangs on.

use interceptor_ebpf::{
    Address, Destination, InterfaceFlags, Listener, Outbound, PolicyFlags, Transport,
};

use super::{
    context::SockAddr,
    pod::{Pod, RouteLookup},
};

/// A call that wants to reach a destination: `connect`, or `sendmsg` with an address.
#[derive(Clone, Copy)]
pub(crate) struct OutboundCall {
    pod: Pod,
    /// Where it really goes.
    pub(crate) destination: Address,
    /// In host byte order.
    pub(crate) port: u16,
    /// What the socket is bound to, as the app sees it; unspecified if it is not.
    pub(crate) bound: Address,
    /// The interface that it is to leave by, if the app names one; else 0.
    pub(crate) interface: u32,
}

impl OutboundCall {
    #[inline(always)]
    pub(crate) fn of(call: &SockAddr, pod: Pod, bound: Address, interface: u32) -> Self {
        Self {
            pod,
            destination: pod
                .policy
                .opaque_address(effective_destination(call.address(), bound)),
            port: call.port(),
            bound,
            interface: pod.policy.opaque(interface),
        }
    }

    /// The same towards `destination`.
    #[inline(always)]
    pub(crate) const fn towards(self, destination: Address) -> Self {
        Self {
            destination,
            ..self
        }
    }

    /// The same if it is IPv4, with an address of which the compiler knows that. (Each question for
    /// the family that is open when the program is loaded is two paths more for the verifier to
    /// walk, so what follows is compiled twice, once for each family.)
    #[inline(always)]
    pub(crate) fn as_v4(self) -> Option<Self> {
        let destination = Address::from_v4(self.destination.v4()?);
        Some(Self {
            destination,
            ..self
        })
    }

    /// What the pod's routing does with the destination.
    #[inline(always)]
    pub(crate) fn look_up_route(self) -> RouteLookup {
        self.pod.look_up_route(self.destination)
    }

    #[inline(always)]
    pub(crate) fn flow(
        self,
        call: &SockAddr,
        transport: Transport,
        lookup: RouteLookup,
    ) -> Outbound {
        Outbound {
            destination: self.destination,
            port: self.port,
            transport,
            source: self.pod.policy.opaque_address(self.source(lookup)),
            via_loopback: lookup.is_own,
            by_excluded_interface: self.is_by_excluded_interface(lookup),
            is_marked: self.is_marked(call),
            owner: call.socket().owner(),
        }
    }

    /// Where it comes from: what the socket is bound to, else what routing picks.
    #[inline(always)]
    pub(crate) fn source(self, lookup: RouteLookup) -> Address {
        match lookup.route {
            Some(route) if self.bound.is_unspecified() => route.source,
            _ => self.bound,
        }
    }

    /// The way out is that of the route, or the interface that the app names; but to the pod itself it
    /// is always `lo` (`ip_route_output_key_hash_rcu`).
    #[inline(always)]
    fn is_by_excluded_interface(self, lookup: RouteLookup) -> bool {
        if !self.pod.policy.flags.contains(PolicyFlags::HAS_INTERFACES) {
            return false;
        }
        match self.interface {
            named if named != 0 && !lookup.is_own => {
                let flags = self.pod.interface_flags(named);
                flags.contains(InterfaceFlags::EXCLUDED)
            }
            _ => lookup.is_by_excluded_interface(),
        }
    }

    #[inline(always)]
    fn is_marked(self, call: &SockAddr) -> bool {
        let policy = self.pod.policy;
        policy.flags.contains(PolicyFlags::TPROXY) && call.sock().mark() == policy.mark
    }

    /// What is remembered of the destination when `listener` gets the connection.
    #[inline(always)]
    pub(crate) fn captured_by(self, listener: Listener, lookup: RouteLookup) -> Destination {
        Destination {
            address: self.destination,
            port: self.port,
            listener: listener as u8,
            source: self.pod.source_index(lookup),
            interface: 0,
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
