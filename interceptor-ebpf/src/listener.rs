//! The map keys of the proxy's listening sockets.
//!
//! Lookups need few addresses only: the wildcards, localhost, and the pod's own addresses. So a
//! key has the kind of the address, not the address. This bounds the entries of a pod by kinds,
//! ports and slots, whatever its processes listen on.

use crate::{Address, NetnsCookie, layout::map_type};

/// The number of kinds of addresses.
pub const LISTENER_ADDRESSES: usize = 5;

/// The number of ports of a pod whose listeners are registered: 15001, 15006 and 15053.
pub const MAX_LISTENER_PORTS: usize = 3;

/// The kind of address that a listening socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ListenerAddress {
    /// `0.0.0.0`
    AnyV4 = 0,
    /// `::`
    AnyV6 = 1,
    /// `127.0.0.1`
    LocalhostV4 = 2,
    /// `::1`
    LocalhostV6 = 3,
    /// Another address, of either family.
    Other = 4,
}

impl ListenerAddress {
    /// Every kind.
    pub const ALL: [Self; LISTENER_ADDRESSES] = [
        Self::AnyV4,
        Self::AnyV6,
        Self::LocalhostV4,
        Self::LocalhostV6,
        Self::Other,
    ];

    /// The kind of `address`.
    #[inline(always)]
    #[must_use]
    pub fn of(address: Address) -> Self {
        if address.is_unspecified() {
            if address.is_v4() {
                Self::AnyV4
            } else {
                Self::AnyV6
            }
        } else if address == address.localhost() {
            if address.is_v4() {
                Self::LocalhostV4
            } else {
                Self::LocalhostV6
            }
        } else {
            Self::Other
        }
    }
}

map_type! {
    /// Key of `LISTENERS`: a listening socket.
    #[derive(PartialEq, Eq, Hash)]
    pub struct ListenerKey: 16 {
        /// The pod.
        pub netns: NetnsCookie,
        /// The port, in host byte order.
        pub port: u16,
        /// The slot among the sockets on this port and kind of address.
        pub slot: u16,
        address: u32,
    }
}

impl ListenerKey {
    /// The key of the first socket on `port` and this kind of address.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: NetnsCookie, address: ListenerAddress, port: u16) -> Self {
        Self {
            netns,
            port,
            slot: 0,
            address: address as u32,
        }
    }

    /// The same key with another slot.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, slot: u16) -> Self {
        Self { slot, ..self }
    }

    /// Whether all sockets under such keys are bound to the same address.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_one_address(&self) -> bool {
        self.address != ListenerAddress::Other as u32
    }
}

map_type! {
    /// Key of `LISTENER_PORTS`: a port whose listeners are registered.
    #[derive(PartialEq, Eq, Hash)]
    pub struct ListenerPortKey: 16 {
        /// The pod.
        pub netns: NetnsCookie,
        port: u32,
        zero: u32,
    }
}

impl ListenerPortKey {
    /// The key of `port`, in host byte order, in `netns`.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: NetnsCookie, port: u16) -> Self {
        Self {
            netns,
            port: port as u32,
            zero: 0,
        }
    }

    /// The port, in host byte order.
    #[must_use]
    pub const fn port(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "made of 16 bits")]
        {
            self.port as u16
        }
    }
}

map_type! {
    /// Value of `LISTENER_PORTS`: where to search for the sockets of a port.
    #[derive(Default, PartialEq, Eq)]
    pub struct ListenerPort: 32 {
        /// The cookie of the socket that was registered last.
        pub last: u64,
        /// The slot of that socket.
        pub last_slot: u32,
        zero: u32,
        /// For each kind of address, the slot in which a socket was last registered or found, plus
        /// one; 0 if none was registered.
        pub found: [u16; 8],
    }
}
