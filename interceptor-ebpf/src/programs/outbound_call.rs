//! A call of a pod's socket with a destination: the facts that an outbound verdict depends on.

use interceptor_ebpf::{
    Address, Destination, InterfaceFlags, Listener, Outbound, PolicyFlags, Transport,
};

use super::{
    context::SockAddr,
    pod::{Pod, RouteLookup},
};

/// A call with a destination: `connect`, or `sendmsg` with an address.
#[derive(Clone, Copy)]
pub(crate) struct OutboundCall {
    pub(crate) pod: Pod,
    /// The effective destination.
    pub(crate) destination: Address,
    /// In host byte order.
    pub(crate) port: u16,
    /// The address that the app has bound the socket to; unspecified if none.
    pub(crate) bound: Address,
    /// The outgoing interface if the app selects one, otherwise 0.
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

    /// The same call to `destination`.
    #[inline(always)]
    pub(crate) const fn towards(self, destination: Address) -> Self {
        Self {
            destination,
            ..self
        }
    }

    /// The same call if it is IPv4, with an address that the compiler knows to be IPv4. (The
    /// verifier follows two paths for each test of a family that it does not know, so the code that
    /// follows is compiled once for each family.)
    #[inline(always)]
    pub(crate) fn as_v4(self) -> Option<Self> {
        let destination = Address::from_v4(self.destination.v4()?);
        Some(Self {
            destination,
            ..self
        })
    }

    /// Looks up the route to the destination.
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

    /// The source address: that of the socket, otherwise the one that routing selects.
    #[inline(always)]
    pub(crate) fn source(self, lookup: RouteLookup) -> Address {
        match lookup.route {
            Some(route) if self.bound.is_unspecified() => route.source,
            _ => self.bound,
        }
    }

    /// Whether the outgoing interface is excluded: the one that the app selects, otherwise the
    /// route's; to the pod itself always `lo` (`ip_route_output_key_hash_rcu`).
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

    /// The destination to record when `listener` receives the connection.
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

/// The effective destination of a connection to `address`. The unspecified address means this host:
/// the socket's own address for IPv4 (`ip_route_output_key_hash_rcu`), localhost otherwise
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
