//! The pod's routing, as far as an interception must know it.

use crate::{Address, layout::map_type};

map_type! {
    /// What the pod's routing does with a destination, asked of the kernel for every prefix in
    /// which its answer can differ.
    pub struct Route: 24 {
        /// The source address that an unbound socket gets.
        pub source: Address,
        /// The errno with which the kernel refuses to route, or 0.
        pub error: u32,
        /// Which of the pod's source addresses `source` is: the part of the stand-in range that
        /// comes from it.
        pub source_index: u16,
        /// 1 if the way out is `lo`: the destination is the pod's own address.
        pub via_loopback: u16,
    }
}

impl Route {
    /// Whether the destination is one of the pod's own addresses (`-o lo`).
    #[inline(always)]
    #[must_use]
    pub const fn is_via_loopback(&self) -> bool {
        self.via_loopback != 0
    }
}
