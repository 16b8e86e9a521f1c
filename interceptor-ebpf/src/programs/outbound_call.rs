//! What a socket of a pod is about to reach: the facts that an outbound verdict hangs on.

use interceptor_ebpf::{
    Address, Destination, InterfaceFlags, Listener, Outbound, PolicyFlags, Transport,
};

use super::{
    context::SockAddr,
    pod::{Pod, Way},
};

/// A call that wants to reach a destination: `connect`, or `sendmsg` with an address.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
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

impl Attempt {
    #[inline(always)]
    pub(crate) fn of(call: &SockAddr, pod: Pod, bound: Address, interface: u32) -> Self {
        Self {
            pod,
            destination: pod
                .policy
                .unlearned_address(effective_destination(call.address(), bound)),
            port: call.port(),
            bound,
            interface: pod.policy.unlearned(interface),
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
    pub(crate) fn way(self) -> Way {
        self.pod.way(self.destination)
    }

    #[inline(always)]
    pub(crate) fn flow(self, call: &SockAddr, transport: Transport, way: Way) -> Outbound {
        Outbound {
            destination: self.destination,
            port: self.port,
            transport,
            source: self.pod.policy.unlearned_address(self.source(way)),
            via_loopback: way.is_own,
            by_excluded_interface: self.is_by_excluded_interface(way),
            is_marked: self.is_marked(call),
            owner: call.socket().owner(),
        }
    }

    /// Where it comes from: what the socket is bound to, else what routing picks.
    #[inline(always)]
    pub(crate) fn source(self, way: Way) -> Address {
        match way.route {
            Some(route) if self.bound.is_unspecified() => route.source,
            _ => self.bound,
        }
    }

    /// The way out is that of the route, or the interface that the app names; but to the pod itself it
    /// is always `lo` (`ip_route_output_key_hash_rcu`).
    #[inline(always)]
    fn is_by_excluded_interface(self, way: Way) -> bool {
        if !self.pod.policy.flags.contains(PolicyFlags::HAS_INTERFACES) {
            return false;
        }
        match self.interface {
            named if named != 0 && !way.is_own => {
                let flags = self.pod.interface_flags(named);
                flags.contains(InterfaceFlags::EXCLUDED)
            }
            _ => way.is_by_excluded_interface(),
        }
    }

    #[inline(always)]
    fn is_marked(self, call: &SockAddr) -> bool {
        let policy = self.pod.policy;
        policy.flags.contains(PolicyFlags::TPROXY) && call.sock().mark() == policy.mark
    }

    /// What is remembered of the destination when `listener` gets the connection.
    #[inline(always)]
    pub(crate) fn captured_by(self, listener: Listener, way: Way) -> Destination {
        Destination {
            address: self.destination,
            port: self.port,
            listener: listener as u8,
            source: self.pod.source_index(way),
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
