//! The pod's routing, as far as capture needs it.

use crate::{
    Address,
    layout::{flags, map_type},
};

flags! {
    /// The flags of a route.
    RouteFlags(u16): 2 {
        /// The destination is an address of the pod (`-o lo`).
        VIA_LOOPBACK = 1 << 0,
        /// The outgoing interface is excluded (`-c`).
        BY_EXCLUDED_INTERFACE = 1 << 1,
    }
}

map_type! {
    /// The pod's route to a destination. Userspace queries the kernel once for every prefix in
    /// which the result can differ.
    pub struct Route: 28 {
        /// The source address of an unbound socket.
        pub source: Address,
        /// The errno of the kernel's routing, or 0.
        pub error: u16,
        /// The same for a socket that is bound to a loopback address: EINVAL for every interface
        /// except `lo` (`__mkroute_output`), unless the interface has `route_localnet`.
        pub loopback_error: u16,
        /// The index of `source` among the pod's source addresses, which is the part of the
        /// stand-in range with that source.
        pub source_index: u16,
        /// Properties of the route.
        pub flags: RouteFlags,
        /// The index of the outgoing interface, or 0.
        pub interface: u32,
    }
}

impl Route {
    /// The errno of the kernel's routing for a socket bound to `bound`, or 0.
    #[inline(always)]
    #[must_use]
    pub const fn error_for(&self, bound: Address) -> u16 {
        if bound.is_loopback() {
            self.loopback_error
        } else {
            self.error
        }
    }

    /// Whether the destination is an address of the pod (`-o lo`).
    #[inline(always)]
    #[must_use]
    pub const fn is_via_loopback(&self) -> bool {
        self.flags.contains(RouteFlags::VIA_LOOPBACK)
    }

    /// Whether the outgoing interface is excluded (`-c`).
    #[inline(always)]
    #[must_use]
    pub const fn is_by_excluded_interface(&self) -> bool {
        self.flags.contains(RouteFlags::BY_EXCLUDED_INTERFACE)
    }
}
