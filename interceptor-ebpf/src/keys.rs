//! Keys and values of the maps.

use crate::{Address, InterfaceFlags, PortFlags, StandInNumber, layout::map_type};

/// The kernel's ID of a network namespace, unique until reboot (`SO_NETNS_COOKIE`,
/// `bpf_get_netns_cookie`).
pub type NetnsCookie = u64;

/// The key of a policy's lists. Random for every policy, so that entries that an interrupted attach
/// has left are never used for another policy.
pub type PolicyId = u32;

/// Bytes of settings in one map entry.
pub const SETTINGS_CHUNK: usize = 1024;

map_type! {
    /// The original destination of a captured connection, and how the proxy receives it.
    #[derive(PartialEq, Eq, Hash)]
    pub struct Destination: 24 {
        /// The original destination.
        pub address: Address,
        /// The original destination's port, in host byte order.
        pub port: u16,
        /// The [`crate::Listener`] that receives the connection.
        pub listener: u8,
        /// The index of the connection's source address.
        pub source: u8,
        /// The incoming interface of a forwarded connection; 0 for a socket of the pod.
        pub interface: u32,
    }
}

map_type! {
    /// Key of `FORWARD`: a destination that may have a stand-in.
    #[derive(PartialEq, Eq, Hash)]
    pub struct ForwardKey: 32 {
        /// The pod.
        pub netns: NetnsCookie,
        /// The original destination.
        pub destination: Destination,
    }
}

impl ForwardKey {
    /// The key of `destination` in `netns`.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: NetnsCookie, destination: Destination) -> Self {
        Self { netns, destination }
    }
}

map_type! {
    /// Key of `STAND_INS`: the slot of a stand-in's number.
    #[derive(PartialEq, Eq, Hash)]
    pub struct SlotKey: 16 {
        /// The pod.
        pub netns: NetnsCookie,
        slot: u32,
        zero: u32,
    }
}

impl SlotKey {
    /// The key of `slot` in `netns`.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: NetnsCookie, slot: u32) -> Self {
        Self {
            netns,
            slot,
            zero: 0,
        }
    }
}

map_type! {
    /// Value of `STAND_INS`: the stand-in in the slot, and its destination.
    #[derive(PartialEq, Eq)]
    pub struct StandInEntry: 32 {
        /// The stand-in in the slot. Another number with this slot was evicted.
        pub number: StandInNumber,
        /// The original destination.
        pub destination: Destination,
    }
}

impl StandInEntry {
    /// The entry of `number` for `destination`.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: StandInNumber, destination: Destination) -> Self {
        Self {
            number,
            destination,
        }
    }
}

map_type! {
    /// Value of `STAND_IN_USAGE`: the use of a pod's stand-ins.
    #[derive(PartialEq, Eq)]
    pub struct StandInUsage: 16 {
        /// The first number that the pod may have allocated.
        pub first: StandInNumber,
        /// How many stand-ins were evicted because the pod needed more than its share.
        pub evicted: u64,
    }
}

map_type! {
    /// Key of `UPLINKS`: an interface, on the pod's side or on the node's.
    #[derive(PartialEq, Eq, Hash)]
    pub struct UplinkKey: 16 {
        /// The network namespace of the interface.
        pub netns: NetnsCookie,
        /// The interface's index.
        pub interface: u32,
        /// Always 0.
        pub zero: u32,
    }
}

map_type! {
    /// Value of `UPLINKS`: the pod whose packets pass the interface.
    #[derive(PartialEq, Eq)]
    pub struct Uplink: 16 {
        /// The pod.
        pub pod: NetnsCookie,
        /// The pod's network namespace, as an ID in that of the interface (`RTM_GETNSID`);
        /// negative if they are the same.
        pub netns_id: i32,
        /// The index of the pod's own interface.
        pub interface: u32,
    }
}

map_type! {
    /// Key of `SELF_CONNECTIONS`: a connection of the pod to itself, during its handshake.
    #[derive(PartialEq, Eq, Hash)]
    pub struct SelfConnection: 48 {
        /// The pod.
        pub netns: NetnsCookie,
        /// The source address.
        pub from: Address,
        /// The destination address.
        pub to: Address,
        /// In host byte order.
        pub from_port: u16,
        /// In host byte order.
        pub to_port: u16,
        zero: u32,
    }
}

impl SelfConnection {
    /// The key of the connection between two addresses and ports.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: NetnsCookie, from: (Address, u16), to: (Address, u16)) -> Self {
        Self {
            netns,
            from: from.0,
            to: to.0,
            from_port: from.1,
            to_port: to.1,
            zero: 0,
        }
    }
}

map_type! {
    /// Value of `DNS_SOCKETS`: the state of a UDP socket that sends DNS queries.
    pub struct DnsSocketState: 40 {
        /// The connected server; for an unconnected socket, the first server queried.
        pub server: Destination,
        /// The address that our `connect` hook has bound the socket to, as routing would have
        /// picked it; unspecified if it has not.
        pub source: Address,
    }
}

map_type! {
    /// Key of `PREFIXES` and `ROUTES`: an address under a policy. Both are longest-prefix tries;
    /// the policy's 32 bits are always part of the prefix.
    pub struct PrefixKey: 20 {
        /// The policy.
        pub policy: PolicyId,
        /// The address, IPv4-mapped for IPv4.
        pub address: Address,
    }
}

impl PrefixKey {
    /// The bits before the address.
    pub const POLICY_BITS: u32 = 32;
    /// All bits, for a lookup.
    pub const BITS: u32 = Self::POLICY_BITS + 128;
}

map_type! {
    /// Key of `INTERFACES`: an interface of a pod.
    #[derive(PartialEq, Eq, Hash)]
    pub struct InterfaceKey: 8 {
        /// The policy.
        pub policy: PolicyId,
        /// The interface's index.
        pub index: u32,
    }
}

map_type! {
    /// Value of `INTERFACES`: the lists that contain an interface, and the addresses to which
    /// REDIRECT sends packets from it, its first of the family and scope
    /// (`net/netfilter/nf_nat_redirect.c`); unspecified if it has none.
    pub struct Interface: 52 {
        /// The IPv4 address.
        pub v4: Address,
        /// The IPv6 address that is not link-local.
        pub v6: Address,
        /// The link-local IPv6 address.
        pub v6_link_local: Address,
        /// The lists that contain the interface.
        pub flags: InterfaceFlags,
    }
}

impl Interface {
    /// An interface without addresses, in no list.
    pub const NONE: Self = Self {
        v4: Address::UNSPECIFIED_V4,
        v6: Address::UNSPECIFIED_V6,
        v6_link_local: Address::UNSPECIFIED_V6,
        flags: InterfaceFlags::NONE,
    };

    /// The interface's address for a connection to `destination`.
    #[inline(always)]
    #[must_use]
    pub const fn address_for(&self, destination: Address) -> Address {
        if destination.is_v4() {
            self.v4
        } else if destination.is_v6_link_local() {
            self.v6_link_local
        } else {
            self.v6
        }
    }
}

map_type! {
    /// Key of `GROUPS`: an owner group that a policy lists.
    #[derive(PartialEq, Eq, Hash)]
    pub struct GroupKey: 8 {
        /// The policy.
        pub policy: PolicyId,
        /// The GID, of the initial user namespace.
        pub gid: u32,
    }
}

map_type! {
    /// Key of `PORTS`: 256 consecutive ports of a policy.
    #[derive(PartialEq, Eq, Hash)]
    pub struct PortPageKey: 8 {
        /// The policy.
        pub policy: PolicyId,
        page: u32,
    }
}

impl PortPageKey {
    /// The key of the page with `port`.
    #[inline(always)]
    #[must_use]
    pub const fn of(policy: PolicyId, port: u16) -> Self {
        Self {
            policy,
            page: (port >> 8) as u32,
        }
    }
}

map_type! {
    /// Value of `PORTS`: the flags of 256 consecutive ports.
    pub struct PortPage: 256 {
        flags: [PortFlags; 256],
    }
}

impl PortPage {
    /// A page whose ports are in no list.
    pub const EMPTY: Self = Self {
        flags: [PortFlags::NONE; 256],
    };

    /// The flags of `port`.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self, port: u16) -> PortFlags {
        self.flags[(port & 0xff) as usize]
    }

    /// Adds `port` to the lists of `flags`.
    pub const fn add(&mut self, port: u16, flags: PortFlags) {
        let entry = &mut self.flags[(port & 0xff) as usize];
        *entry = entry.union(flags);
    }
}

map_type! {
    /// Key of `SETTINGS`: a chunk of the settings text of a policy.
    #[derive(PartialEq, Eq, Hash)]
    pub struct SettingsKey: 8 {
        /// The policy.
        pub policy: PolicyId,
        /// The index of the chunk.
        pub chunk: u32,
    }
}
