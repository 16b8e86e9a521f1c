//! The policy of the network namespace that a hook runs for.

use aya_ebpf::maps::lpm_trie::Key;
use interceptor_ebpf::{
    Address, GroupKey, Interface, InterfaceFlags, InterfaceKey, Lists, NetnsCookie, Policy,
    PolicyFlags, PortFlags, PortPageKey, PrefixFlags, PrefixKey, Route,
};

use super::maps::{GROUPS, INTERFACES, POLICIES, PORTS, PREFIXES, ROUTES};

/// A captured pod.
#[derive(Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) netns: NetnsCookie,
    pub(crate) policy: &'static Policy,
}

impl Pod {
    /// The pod of `netns`, if it is captured. This is all that a socket outside the mesh costs.
    #[inline(always)]
    pub(crate) fn of(netns: NetnsCookie) -> Option<Self> {
        // SAFETY: the map does not preallocate.
        let policy = unsafe { POLICIES.get(netns) }?;
        Some(Self { netns, policy })
    }

    /// What the pod's routing does with `destination`.
    #[inline(always)]
    pub(crate) fn route(self, destination: Address) -> Option<&'static Route> {
        ROUTES.get(self.prefix_key(destination))
    }

    /// Whether `address` is the pod's own.
    #[inline(always)]
    pub(crate) fn is_own(self, address: Address) -> bool {
        self.route(address).is_some_and(Route::is_via_loopback)
    }

    /// Where REDIRECT sends a connection to `destination` that comes in by `interface`. An interface
    /// that is new since the pod was attached is taken to have that address only.
    #[inline(always)]
    pub(crate) fn redirect_address(self, interface: u32, destination: Address) -> Address {
        self.interface(interface)
            .map_or(destination, |interface| interface.address_for(destination))
    }

    /// The lists that an interface is in. One that is new since the pod was attached is in none.
    #[inline(always)]
    pub(crate) fn interface_flags(self, interface: u32) -> InterfaceFlags {
        if !self.policy.flags.contains(PolicyFlags::HAS_INTERFACES) {
            return InterfaceFlags::NONE;
        }
        self.interface(interface)
            .map_or(InterfaceFlags::NONE, |interface| interface.flags)
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

impl Lists for Pod {
    #[inline(always)]
    fn port(&self, port: u16) -> PortFlags {
        if !self.policy.flags.contains(PolicyFlags::HAS_PORTS) {
            return PortFlags::NONE;
        }
        let key = PortPageKey::of(self.policy.id, port);
        // SAFETY: the map does not preallocate.
        unsafe { PORTS.get(key) }.map_or(PortFlags::NONE, |page| page.flags(port))
    }

    #[inline(always)]
    fn prefix(&self, address: Address) -> PrefixFlags {
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
