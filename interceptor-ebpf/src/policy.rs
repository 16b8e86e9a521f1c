//! A pod's settings, compiled for the hot path.

use crate::{FibGeneration, keys::PolicyId, layout::map_type};

/// How many proxy UIDs, and how many GIDs, one policy holds.
pub const MAX_OWNERS: usize = 16;

/// The port of the mesh's own tunnel (HBONE), which the `nat` rules never redirect.
pub const TUNNEL_PORT: u16 = 15008;

map_type! {
    /// What holds for one network namespace. Ports, prefixes and routes are in maps of their own
    /// under this policy's `id`: a policy comes into force, lists and all, by one map update.
    #[derive(PartialEq, Eq)]
    pub struct Policy: 160 {
        /// The key that this policy's ports, prefixes, routes and settings are under.
        pub id: PolicyId,
        /// What is on.
        pub flags: PolicyFlags,
        /// Where captured outbound connections go (15001), in host byte order.
        pub outbound_port: u16,
        /// Where captured inbound connections go (15006), in host byte order.
        pub inbound_port: u16,
        /// What the pod's routing tables were when the routes were copied.
        pub fib: FibGeneration,
        /// The proxy's UIDs, in the order of the rules.
        pub uids: OwnerIds,
        /// The proxy's GIDs, in the order of the rules.
        pub gids: OwnerIds,
    }
}

map_type! {
    /// A list of UIDs or GIDs of the initial user namespace, in the order of their rules.
    #[derive(PartialEq, Eq)]
    pub struct OwnerIds: 68 {
        len: u32,
        ids: [u32; MAX_OWNERS],
    }
}

impl OwnerIds {
    /// The list that holds `ids`, or nothing if they are more than [`MAX_OWNERS`].
    #[must_use]
    pub fn new(list: &[u32]) -> Option<Self> {
        let mut ids = [0; MAX_OWNERS];
        ids.get_mut(..list.len())?.copy_from_slice(list);
        let len = u32::try_from(list.len()).ok()?;
        Some(Self { len, ids })
    }

    /// The `index`th ID, or nothing past the end. (Written for the BPF verifier: the caller's loop
    /// has a constant bound, and no slice can panic.)
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<u32> {
        (index < MAX_OWNERS && index < self.len as usize).then(|| self.ids[index])
    }

    /// The IDs in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..MAX_OWNERS).map_while(|index| self.get(index))
    }
}

/// Declares a set of bits that goes through a map.
macro_rules! flags {
    ($(#[$attribute:meta])* $name:ident($repr:ty): $size:literal { $($(#[$doc:meta])* $flag:ident = $value:expr,)* }) => {
        map_type! {
            $(#[$attribute])*
            #[derive(Default, PartialEq, Eq)]
            pub struct $name: $size {
                bits: $repr,
            }
        }

        impl $name {
            /// No flag.
            pub const NONE: Self = Self { bits: 0 };

            $($(#[$doc])* pub const $flag: Self = Self { bits: $value };)*

            /// Whether every flag of `other` is set.
            #[inline(always)]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.bits & other.bits == other.bits
            }

            /// Both sets together.
            #[inline(always)]
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self { bits: self.bits | other.bits }
            }

            /// `self` and, if `condition` holds, `other`.
            #[must_use]
            pub const fn with(self, other: Self, condition: bool) -> Self {
                if condition { self.union(other) } else { self }
            }
        }
    };
}

flags! {
    /// What is on in a [`Policy`].
    PolicyFlags(u32): 4 {
        /// IPv6 is captured too; without it IPv6 passes, as it does where istio-iptables writes
        /// no ip6tables rules.
        IPV6 = 1 << 0,
        /// `-b '*'`: every inbound port but the excluded ones.
        INBOUND_ALL = 1 << 1,
        /// `-b` lists ports.
        INBOUND_LISTED = 1 << 2,
        /// `-i '*'`: every outbound destination but the excluded ones.
        OUTBOUND_ALL = 1 << 3,
        /// An included prefix is a loopback one, which drops the rules that leave the pod's
        /// traffic to itself alone.
        LOOPBACK_INCLUDED = 1 << 4,
        /// There are port lists to ask.
        HAS_PORTS = 1 << 5,
        /// There are prefixes to ask.
        HAS_PREFIXES = 1 << 6,
        /// Tell aya-log about every verdict.
        LOG = 1 << 7,
    }
}

flags! {
    /// The lists that a port is in.
    PortFlags(u8): 1 {
        /// `-o`: never captured outbound.
        OUTBOUND_EXCLUDED = 1 << 0,
        /// `-b` with a list: captured inbound.
        INBOUND_INCLUDED = 1 << 1,
        /// `-d`: not captured inbound.
        INBOUND_EXCLUDED = 1 << 2,
    }
}

flags! {
    /// The lists that a prefix, or one that covers it, is in.
    PrefixFlags(u32): 4 {
        /// `-i`: captured outbound.
        INCLUDED = 1 << 0,
        /// `-x`: never captured outbound.
        EXCLUDED = 1 << 1,
    }
}

/// One of the proxy's two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listener {
    /// Port 15001, for what the pod sends.
    Outbound = 1,
    /// Port 15006, for what the pod receives.
    Inbound = 2,
}

impl Listener {
    /// The listener that a map's byte names.
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Outbound),
            2 => Some(Self::Inbound),
            _ => None,
        }
    }

    /// Its port under `policy`, in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, policy: &Policy) -> u16 {
        match self {
            Self::Outbound => policy.outbound_port,
            Self::Inbound => policy.inbound_port,
        }
    }
}
