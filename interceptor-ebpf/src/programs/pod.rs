//! The policy of the network namespace that a hook runs for.

use aya_ebpf::maps::lpm_trie::Key;
use interceptor_ebpf::{
    Address, GroupKey, Interface, InterfaceFlags, InterfaceKey, NetnsCookie, Policy, PolicyFlags,
    PolicyLookups, PortFlags, PortPageKey, PrefixFlags, PrefixKey, Route, SOURCELESS, StandInRange,
};

use super::{
    kernel_memory::NetPointer,
    maps::{GROUPS, INTERFACES, POLICIES, PORTS, PREFIXES, ROUTES},
    own_addresses,
    uapi::{ENETUNREACH, ENODEV, LOOPBACK},
};

/// A captured pod.
#[derive(Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) netns: NetnsCookie,
    pub(crate) policy: &'static Policy,
}

impl Pod {
    /// The pod of `netns`, if it is captured. The only cost for a socket outside the mesh.
    #[inline(always)]
    pub(crate) fn of(netns: NetnsCookie) -> Option<Self> {
        // SAFETY: the map does not preallocate.
        let policy = unsafe { POLICIES.get(netns) }?;
        Some(Self { netns, policy })
    }

    /// Looks up the route to `destination`.
    #[inline(always)]
    pub(crate) fn look_up_route(self, destination: Address) -> RouteLookup {
        let route = ROUTES.get(self.prefix_key(destination));
        let is_current = self.is_routing_unchanged(destination.is_v4());
        let is_own = if is_current {
            route.is_some_and(Route::is_via_loopback)
        } else {
            self.has_address_now(destination)
        };
        RouteLookup {
            route,
            is_current,
            is_own,
        }
    }

    /// Whether the pod has `address` now: as [`Self::look_up_route`] returns, but cheaper if
    /// possible.
    #[inline(always)]
    pub(crate) fn owns(self, address: Address) -> bool {
        if self.has_one_address_like(address) && self.is_routing_unchanged(address.is_v4()) {
            address == self.first_source(address)
        } else {
            self.look_up_route(address).is_own
        }
    }

    /// Whether the pod has exactly one address of the family of `address`, which itself is not one
    /// that every pod has.
    #[inline(always)]
    fn has_one_address_like(self, address: Address) -> bool {
        let flags = self.policy.flags;
        if address.is_v4() {
            flags.contains(PolicyFlags::ONE_V4) && !address.is_loopback()
        } else {
            let is_special = address.words()[0] == 0
                || address.is_v6_link_local()
                || StandInRange::contains(address);
            flags.contains(PolicyFlags::ONE_V6) && !is_special
        }
    }

    /// The first source address in the family of `like`.
    #[inline(always)]
    fn first_source(self, like: Address) -> Address {
        if like.is_v4() {
            self.policy.first_source_v4
        } else {
            self.policy.first_source_v6
        }
    }

    /// Whether the routes of one family are unchanged since they were copied.
    #[inline(always)]
    fn is_routing_unchanged(self, v4: bool) -> bool {
        let (copied, net) = (&self.policy.fib, self.net());
        if v4 {
            copied.is_same_v4(net.rt_genid())
        } else {
            copied.is_same_v6(net.fib6_sernum(), net.rt6_entries())
        }
    }

    /// The part of the stand-in range for a connection by this route. The pod may have lost the
    /// copied source address, and nothing can be sent from it (`ip_route_output_key_hash_rcu`):
    /// another part is used then.
    #[inline(always)]
    pub(crate) fn source_index(self, lookup: RouteLookup) -> u8 {
        let Some(route) = lookup.route else {
            return SOURCELESS;
        };
        let index = route.source_index as u8;
        if lookup.is_current || (index != 0 && self.has_address_now(route.source)) {
            return index;
        }
        if self.has_address_now(self.first_source(route.source)) {
            0
        } else {
            SOURCELESS
        }
    }

    #[inline(always)]
    pub(crate) fn has_address_now(self, address: Address) -> bool {
        address.is_loopback() || own_addresses::include(self.net(), address)
    }

    #[inline(always)]
    fn net(self) -> NetPointer {
        NetPointer::new(self.policy.net)
    }

    /// The address to which REDIRECT sends a connection from `interface` to `destination`. An
    /// interface that is new since the pod was attached is assumed to have only that address.
    #[inline(always)]
    pub(crate) fn redirect_address(self, interface: u32, destination: Address) -> Address {
        if self.has_one_address_like(destination) && destination == self.first_source(destination) {
            return destination;
        }
        self.interface(interface)
            .map_or(destination, |interface| interface.address_for(destination))
    }

    /// The lists that contain an interface. An interface that is new since the pod was attached is
    /// in none.
    #[inline(always)]
    pub(crate) fn interface_flags(self, interface: u32) -> InterfaceFlags {
        if !self.policy.flags.contains(PolicyFlags::HAS_INTERFACES) {
            return InterfaceFlags::NONE;
        }
        self.interface(interface)
            .map_or(InterfaceFlags::NONE, |interface| interface.flags)
    }

    /// The IPv4 address of an interface; unspecified if it has none.
    #[inline(always)]
    pub(crate) fn v4_address_of(self, interface: u32) -> Address {
        self.interface(interface)
            .map_or(Address::UNSPECIFIED_V4, |interface| interface.v4)
    }

    /// The address of `interface` for `destination`; unspecified if it has none.
    #[inline(always)]
    pub(crate) fn address_at(self, interface: u32, destination: Address) -> Address {
        self.interface(interface)
            .map_or(destination.unspecified(), |interface| {
                interface.address_for(destination)
            })
    }

    /// The errno for a query to `server` that selects `interface`, or 0. A query on an interface
    /// that has no route to localhost, or is new since the pod was attached, would leave the pod.
    #[inline(always)]
    pub(crate) fn interface_error(self, interface: u32, server: Address) -> u32 {
        if matches!(interface, 0 | LOOPBACK) {
            return 0;
        }
        let Some(interface) = self.interface(interface) else {
            return ENODEV;
        };
        let reaches = if server.is_v4() {
            InterfaceFlags::LOCALHOST_V4
        } else {
            InterfaceFlags::LOCALHOST_V6
        };
        if interface.flags.contains(reaches) {
            0
        } else {
            ENETUNREACH
        }
    }

    /// Whether an interface had `address` as its REDIRECT address when the pod was attached. Cheap,
    /// but out of date after changes: do not use it for new connections.
    #[inline(always)]
    pub(crate) fn had_address(self, interface: u32, address: Address) -> bool {
        self.interface(interface)
            .is_some_and(|interface| interface.address_for(address) == address)
    }

    /// Whether our tc programs see the packets of an interface.
    #[inline(always)]
    pub(crate) fn watches(self, interface: u32) -> bool {
        self.interface_flags(interface)
            .contains(InterfaceFlags::WATCHED)
    }

    #[inline(always)]
    fn interface(self, index: u32) -> Option<&'static Interface> {
        let policy = self.policy.id;
        // SAFETY: the map does not preallocate.
        unsafe { INTERFACES.get(InterfaceKey { policy, index }) }
    }

    #[inline(always)]
    fn prefix_key(self, address: Address) -> Key<PrefixKey> {
        let policy = self.policy.id;
        Key::new(PrefixKey::BITS, PrefixKey { policy, address })
    }
}

impl PolicyLookups for Pod {
    #[inline(always)]
    fn port_flags(&self, port: u16) -> PortFlags {
        let key = PortPageKey::of(self.policy.id, port);
        // SAFETY: the map does not preallocate.
        unsafe { PORTS.get(key) }.map_or(PortFlags::NONE, |page| page.flags(port))
    }

    #[inline(always)]
    fn prefix_flags(&self, address: Address) -> PrefixFlags {
        if !self.policy.flags.contains(PolicyFlags::HAS_PREFIXES) {
            return PrefixFlags::NONE;
        }
        PREFIXES
            .get(self.prefix_key(address))
            .copied()
            .unwrap_or_default()
    }

    #[inline(always)]
    fn has_group(&self, gid: u32) -> bool {
        let policy = self.policy.id;
        // SAFETY: the map does not preallocate.
        unsafe { GROUPS.get(GroupKey { policy, gid }) }.is_some()
    }
}

/// The result of a route lookup.
#[derive(Clone, Copy)]
pub(crate) struct RouteLookup {
    /// The copied route.
    pub(crate) route: Option<&'static Route>,
    /// Whether the routing tables are unchanged since the copy.
    pub(crate) is_current: bool,
    /// Whether the destination is an address of the pod now (`-o lo`).
    pub(crate) is_own: bool,
}

impl RouteLookup {
    /// The errno of the kernel's routing for a socket bound to `bound`, or 0. A route that is out
    /// of date refuses nothing: the proxy gets the kernel's result.
    #[inline(always)]
    pub(crate) fn error_for(self, bound: Address) -> u16 {
        match self.route {
            Some(route) if self.is_current => route.error_for(bound),
            _ => 0,
        }
    }

    /// Whether the outgoing interface is excluded (`-c`). A route that is out of date excludes
    /// nothing.
    #[inline(always)]
    pub(crate) fn is_by_excluded_interface(self) -> bool {
        self.is_current && self.route.is_some_and(Route::is_by_excluded_interface)
    }
}
