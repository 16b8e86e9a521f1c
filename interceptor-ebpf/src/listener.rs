//! The proxy's listening sockets: under which keys they are noted.
//!
//! A look-up asks for few addresses only: the wildcards, localhost, and addresses of the pod's own.
//! So a key has the kind of the address, not the address. What a pod can put into the table is
//! bounded by its kinds, ports and slots, whatever its processes listen on.

use crate::{Address, NetnsCookie, layout::map_type};

/// How many kinds of addresses there are.
pub const LISTENER_ADDRESSES: usize = 5;

/// How many ports of a pod have listeners that are noted: 15001, 15006 and 15053.
pub const MAX_LISTENER_PORTS: usize = 3;

/// What a listening socket is bound to.
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
    /// Key of `LISTENERS`: a socket that listens.
    #[derive(PartialEq, Eq, Hash)]
    pub struct ListenerKey: 16 {
        /// The pod.
        pub netns: NetnsCookie,
        /// The port, in host byte order.
        pub port: u16,
        /// Which of the sockets on this port and this kind of address.
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
    /// Key of `LISTENER_PORTS`: a port whose listeners are noted.
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
    /// Value of `LISTENER_PORTS`: where the sockets of a port are.
    #[derive(Default, PartialEq, Eq)]
    pub struct ListenerPort: 32 {
        /// Cookie of the socket that was noted last.
        pub last: u64,
        /// The slot that it was put into.
        pub last_slot: u32,
        zero: u32,
        /// For each kind of address, the slot in which a socket was last put or found, plus one; 0
        /// if none was ever noted.
        pub found: [u16; 8],
    }
}
