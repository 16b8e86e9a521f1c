//! The pod's routing, as far as an interception must know it.

use crate::{
    Address,
    layout::{flags, map_type},
};

flags! {
    /// What is to be known of the way out.
    RouteFlags(u16): 2 {
        /// It is `lo`: the destination is the pod's own address.
        VIA_LOOPBACK = 1 << 0,
        /// It is an interface of `-c`.
        BY_EXCLUDED_INTERFACE = 1 << 1,
    }
}

map_type! {
    /// What the pod's routing does with a destination, asked of the kernel for every prefix in
    /// which its answer can differ.
    pub struct Route: 28 {
        /// The source address that an unbound socket gets.
        pub source: Address,
        /// The errno with which the kernel refuses to route, or 0.
        pub error: u16,
        /// The same for a socket that is bound to a loopback address: EINVAL for every way out but
        /// `lo` (`__mkroute_output`), unless the interface has `route_localnet`.
        pub loopback_error: u16,
        /// Which of the pod's source addresses `source` is: the part of the stand-in range that
        /// comes from it.
        pub source_index: u16,
        /// The way out.
        pub flags: RouteFlags,
        /// The index of the interface of the way out, or 0.
        pub interface: u32,
    }
}

impl Route {
    /// The errno with which the kernel refuses to route for a socket bound to `bound`, or 0.
    #[inline(always)]
    #[must_use]
    pub const fn error_for(&self, bound: Address) -> u16 {
        if bound.is_loopback() {
            self.loopback_error
        } else {
            self.error
        }
    }

    /// Whether the destination is one of the pod's own addresses (`-o lo`).
    #[inline(always)]
    #[must_use]
    pub const fn is_via_loopback(&self) -> bool {
        self.flags.contains(RouteFlags::VIA_LOOPBACK)
    }

    /// Whether the way out is an interface of `-c`.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_excluded_interface(&self) -> bool {
        self.flags.contains(RouteFlags::BY_EXCLUDED_INTERFACE)
    }
}
