//! A pod's settings, compiled for the hot path.

use crate::{
    Address, FibGeneration, MAX_PODS, Owner,
    keys::PolicyId,
    layout::{flags, map_type},
};

/// The maximum number of proxy UIDs, and of GIDs, in one policy.
pub const MAX_OWNERS: usize = 16;

/// The number in most policies. More make each connection more expensive.
const USUAL_OWNERS: usize = 2;

/// The port of DNS servers.
pub const DNS_PORT: u16 = 53;

/// The port of istio-agent's DNS proxy, which receives captured queries. istio-iptables has no setting
/// for it.
pub const DNS_CAPTURE_PORT: u16 = 15053;

const POLICY_SIZE: usize = 216 + OTHER * size_of::<u32>();

// `Policy::opaque` requires it.
const _: () = assert!(MAX_PODS <= 1 << (u16::BITS - 1), "an index of counters");

/// The words between the ID and the rest.
pub const OTHER: usize = if cfg!(feature = "other-layout") { 8 } else { 0 };

map_type! {
    /// The settings of one network namespace. Ports, prefixes and routes are in maps of their own
    /// under this policy's `id`: one map update activates a policy with all its lists. The `id`
    /// comes first in every build, so that another build finds the settings from which the policy was
    /// compiled.
    #[derive(PartialEq, Eq)]
    pub struct Policy: POLICY_SIZE {
        /// The key of this policy's ports, prefixes, routes and settings.
        pub id: PolicyId,
        /// Only in the build with another layout, for tests.
        #[cfg(feature = "other-layout")]
        pub other: [u32; OTHER],
        /// The enabled features.
        pub flags: PolicyFlags,
        /// The proxy's port for outbound connections (15001), in host byte order.
        pub outbound_port: u16,
        /// The proxy's port for inbound connections (15006), in host byte order.
        pub inbound_port: u16,
        /// The port of the mesh's own tunnel (15008), which the `nat` rules never redirect, in host
        /// byte order.
        pub tunnel_port: u16,
        /// The index of the pod's counters, below [`crate::MAX_PODS`]: its highest bit is always 0.
        pub counters: u16,
        /// TPROXY's mark.
        pub mark: u32,
        /// The prefix that counts as localhost in IPv4.
        pub loopback: V4Prefix,
        /// The state of the pod's routing tables when the routes were copied.
        pub fib: FibGeneration,
        /// The address of the `struct net`. Valid in every program that looks up this policy: such
        /// a program runs for a socket of that namespace, or for a packet at one of its interfaces
        /// or at the interface's peer, which the kernel deletes first.
        pub net: u64,
        /// The source address of the first part of the stand-in range, for IPv4.
        pub first_source_v4: Address,
        /// The same for IPv6.
        pub first_source_v6: Address,
        /// The proxy's UIDs, in the order of the rules.
        pub uids: OwnerIds,
        /// The proxy's GIDs, in the order of the rules.
        pub gids: OwnerIds,
    }
}

impl Policy {
    /// The same policy, except that every new connection passes. Connections that are already
    /// captured still find the proxy, their original destination and their names: lists, ports and
    /// stand-ins keep the same ID.
    #[must_use]
    pub const fn draining(&self) -> Self {
        // Without the flags that capture.
        let kept = PolicyFlags::IPV6
            .union(PolicyFlags::TPROXY)
            .union(PolicyFlags::HAS_INTERFACES)
            .union(PolicyFlags::SEEN_TWICE)
            .union(PolicyFlags::ONE_V4)
            .union(PolicyFlags::ONE_V6);
        Self {
            flags: self.flags.intersection(kept).union(PolicyFlags::DRAINING),
            // The proxy's connections to its own pod are captured because of their owner.
            uids: OwnerIds::NONE,
            gids: OwnerIds::NONE,
            ..*self
        }
    }

    /// Whether a socket of `owner` is the proxy's. Compares all IDs without a branch: the verifier
    /// would follow each path, for each socket of a search.
    #[inline(always)]
    #[must_use]
    pub fn is_proxy(&self, owner: Owner) -> bool {
        (self.uids.hits(owner.uid) | self.gids.hits(owner.gid)) >> 63 != 0
    }

    /// Whether the pod is being detached.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.flags.contains(PolicyFlags::DRAINING)
    }

    /// A copy of `word` whose value is unknown to the BPF verifier (cf. `core::hint::black_box`),
    /// which otherwise would verify all following code once for each known value.
    #[inline(always)]
    #[must_use]
    pub const fn opaque(&self, word: u32) -> u32 {
        // Always 0. To the verifier, a value from a map may be any, and subtracting it from 0 affects
        // all bits.
        let zero = (self.counters >> (u16::BITS - 1)) as u32;
        word ^ 0_u32.wrapping_sub(zero)
    }

    /// The same for an address. A known family stays known.
    #[inline(always)]
    #[must_use]
    pub const fn opaque_address(&self, address: Address) -> Address {
        if let Some(v4) = address.v4() {
            return Address::from_v4(self.opaque(v4));
        }
        let [a, b, c, d] = address.words();
        Address::from_words([
            self.opaque(a),
            self.opaque(b),
            self.opaque(c),
            self.opaque(d),
        ])
    }
}

map_type! {
    /// An IPv4 prefix, both parts in network byte order.
    #[derive(PartialEq, Eq)]
    pub struct V4Prefix: 8 {
        network: u32,
        mask: u32,
    }
}

impl V4Prefix {
    /// The prefix that `address` is in, of `length` bits.
    #[must_use]
    pub fn new(address: core::net::Ipv4Addr, length: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Self {
            network: (address.to_bits() & mask).to_be(),
            mask: mask.to_be(),
        }
    }

    #[inline(always)]
    const fn contains(self, address: u32) -> bool {
        address & self.mask == self.network
    }
}

impl Policy {
    /// Whether `address` is localhost for the rules: in the loopback CIDR (only 127.0.0.1, unless
    /// set), or `::1`.
    #[inline(always)]
    #[must_use]
    pub fn is_localhost(&self, address: Address) -> bool {
        match address.v4() {
            Some(v4) => self.loopback.contains(v4),
            None => address == Address::LOCALHOST_V6,
        }
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
    /// No ID.
    pub const NONE: Self = Self {
        len: 0,
        ids: [0; MAX_OWNERS],
    };

    /// The list of `ids`; `None` if they are more than [`MAX_OWNERS`].
    #[must_use]
    pub fn new(list: &[u32]) -> Option<Self> {
        // Unused entries repeat the first, which matches nothing else.
        let mut ids = [list.first().copied().unwrap_or(0); MAX_OWNERS];
        ids.get_mut(..list.len())?.copy_from_slice(list);
        let len = u32::try_from(list.len()).ok()?;
        Some(Self { len, ids })
    }

    /// The `index`th ID; `None` past the end. (Written for the BPF verifier: the caller's loop has a
    /// constant bound, and no slice can panic.)
    #[inline(always)]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<u32> {
        (index < MAX_OWNERS && index < self.len as usize).then(|| self.ids[index])
    }

    /// Whether there are none.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A number whose highest bit is set if `id` is one of them.
    #[inline(always)]
    fn hits(&self, id: u32) -> u64 {
        // Unused entries repeat the first one; if there is none, the highest bit of the mask is 0.
        let is_any = 0_u64.wrapping_sub(self.len.into());
        differences(&self.ids, id) & is_any
    }

    /// Whether `id` is one of them.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        let (first, rest) = self.ids.split_at(USUAL_OWNERS);
        let mut hits = differences(first, id);
        if self.len as usize > USUAL_OWNERS {
            hits |= differences(rest, id);
        }
        hits >> 63 != 0 && !self.is_empty()
    }

    /// The IDs in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..MAX_OWNERS).map_while(|index| self.get(index))
    }
}

/// A number whose highest bit is set if `id` is one of `ids`: only 0 minus 1 sets it. (The BPF
/// verifier would follow a path for each branch of a comparison.)
#[inline(always)]
fn differences(ids: &[u32], id: u32) -> u64 {
    let mut all = 0;
    for known in ids {
        all |= u64::from(known ^ id).wrapping_sub(1);
    }
    all
}

flags! {
    /// The features of a [`Policy`].
    PolicyFlags(u32): 4 {
        /// IPv6 is captured too; without this flag IPv6 passes, as if istio-iptables writes no
        /// ip6tables rules.
        IPV6 = 1 << 0,
        /// `-b '*'`: every inbound port except the excluded ones.
        INBOUND_ALL = 1 << 1,
        /// `-b` lists ports.
        INBOUND_LISTED = 1 << 2,
        /// `-i '*'`: every outbound destination except the excluded ones.
        OUTBOUND_ALL = 1 << 3,
        /// An included prefix is a loopback one, which removes the rules that exempt the pod's
        /// traffic to itself.
        LOOPBACK_INCLUDED = 1 << 4,
        /// The policy lists outbound ports.
        HAS_OUTBOUND_PORTS = 1 << 5,
        /// The policy lists prefixes.
        HAS_PREFIXES = 1 << 6,
        /// Inbound connections have the client's address also between the proxy and the app.
        TPROXY = 1 << 8,
        /// DNS queries to at least some servers are captured.
        DNS = 1 << 9,
        /// DNS queries to every server are captured.
        DNS_ALL = 1 << 10,
        /// Only listed owner groups are captured; without this flag, all except those.
        GROUPS_INCLUDED = 1 << 11,
        /// The policy lists owner groups.
        HAS_GROUPS = 1 << 12,
        /// Interfaces are excluded, rerouted or watched.
        HAS_INTERFACES = 1 << 13,
        /// The programs run for each socket at two cgroups, one after the other, as on a node.
        SEEN_TWICE = 1 << 14,
        /// The pod has one IPv4 address besides those of `lo`, `first_source_v4`, at its only
        /// incoming interface, and no others are routed to it.
        ONE_V4 = 1 << 15,
        /// The same for IPv6, without link-local addresses.
        ONE_V6 = 1 << 16,
        /// The policy lists inbound ports.
        HAS_INBOUND_PORTS = 1 << 17,
        /// The pod is being detached ([`Policy::draining`]). For userspace only.
        DRAINING = 1 << 18,
        /// Strict mode: TCP passes the pod's uplinks only by a decision of these programs.
        STRICT = 1 << 19,
        /// The same for all protocols. Only together with [`Self::STRICT`].
        STRICT_ALL = 1 << 20,
    }
}

flags! {
    /// The lists that contain a port.
    PortFlags(u8): 1 {
        /// `-o`: never captured outbound.
        OUTBOUND_EXCLUDED = 1 << 0,
        /// `-b` with a list: captured inbound.
        INBOUND_INCLUDED = 1 << 1,
        /// `-d`: not captured inbound.
        INBOUND_EXCLUDED = 1 << 2,
        /// `-q`: captured outbound, to any destination.
        OUTBOUND_INCLUDED = 1 << 3,
    }
}

flags! {
    /// The lists that contain a prefix, or one that covers it.
    PrefixFlags(u32): 4 {
        /// `-i`: captured outbound.
        INCLUDED = 1 << 0,
        /// `-x`: never captured outbound.
        EXCLUDED = 1 << 1,
        /// A server of `/etc/resolv.conf` whose queries are captured.
        DNS_SERVER = 1 << 2,
    }
}

flags! {
    /// The lists that contain an interface.
    InterfaceFlags(u32): 4 {
        /// `-c`: connections over this interface are not captured.
        EXCLUDED = 1 << 0,
        /// `-k`: connections from this interface count as outbound.
        REROUTED = 1 << 1,
        /// Our tc programs are attached to it, and capture forwarded connections.
        WATCHED = 1 << 2,
        /// 127.0.0.1 is local on this interface too, for a query that selects it.
        LOCALHOST_V4 = 1 << 3,
        /// The same for `::1`.
        LOCALHOST_V6 = 1 << 4,
    }
}

/// One of the proxy's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listener {
    /// Port 15001, for outbound connections.
    Outbound = 1,
    /// Port 15006, for inbound connections.
    Inbound = 2,
    /// Port 15053, for DNS queries.
    Dns = 3,
    /// Port 15006, for connections of TPROXY mode, which keep their names.
    Transparent = 4,
}

impl Listener {
    /// The listener of a byte in a map.
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Outbound),
            2 => Some(Self::Inbound),
            3 => Some(Self::Dns),
            4 => Some(Self::Transparent),
            _ => None,
        }
    }

    /// The listener's port in `policy`, in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, policy: &Policy) -> u16 {
        match self {
            Self::Outbound => policy.outbound_port,
            Self::Inbound | Self::Transparent => policy.inbound_port,
            Self::Dns => DNS_CAPTURE_PORT,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromBytes as _;

    use super::*;
    use crate::{Flow, Inbound, Outbound, Owner, PolicyLookups, Transport, Verdict, decide};

    /// Lists every port, address and group that the programs look up (`programs/pod.rs`).
    struct AllListed(Policy);

    impl PolicyLookups for AllListed {
        fn port_flags(&self, _: u16) -> PortFlags {
            PortFlags::INBOUND_INCLUDED.union(PortFlags::OUTBOUND_INCLUDED)
        }

        fn prefix_flags(&self, _: Address) -> PrefixFlags {
            if !self.0.flags.contains(PolicyFlags::HAS_PREFIXES) {
                return PrefixFlags::NONE;
            }
            PrefixFlags::INCLUDED.union(PrefixFlags::DNS_SERVER)
        }

        fn has_group(&self, _: u32) -> bool {
            true
        }
    }

    fn policy(flags: u32, uid: u32) -> Policy {
        let mut policy = Policy::read_from_bytes(&[0; size_of::<Policy>()]).unwrap();
        policy.flags = PolicyFlags::read_from_bytes(&flags.to_ne_bytes()).unwrap();
        policy.uids = OwnerIds::new(&[uid]).unwrap();
        policy.gids = policy.uids;
        policy
    }

    proptest! {
        #[test]
        fn the_proxy_is_known_by_either_id(
            uids in prop::collection::vec(0_u32..6, 0..=MAX_OWNERS),
            gids in prop::collection::vec(0_u32..6, 0..=MAX_OWNERS),
            uid in 0_u32..6,
            gid in 0_u32..6,
        ) {
            let mut policy = policy(0, 0);
            policy.uids = OwnerIds::new(&uids).unwrap();
            policy.gids = OwnerIds::new(&gids).unwrap();
            let expected = uids.contains(&uid) || gids.contains(&gid);
            prop_assert_eq!(policy.is_proxy(Owner { uid, gid }), expected);
        }

        #[test]
        fn a_draining_policy_captures_nothing_new(
            flags: u32, address: [u32; 4], port: u16, tcp: bool, facts: [bool; 3], is_proxy: bool
        ) {
            let policy = policy(flags, 1337).draining();
            let destination = Address::from_words(address);
            let id = if is_proxy { 1337 } else { 1000 };
            let outbound = Flow::Outbound(Outbound {
                destination,
                port,
                transport: if tcp { Transport::Tcp } else { Transport::Udp },
                source: destination,
                via_loopback: facts[0],
                by_excluded_interface: facts[1],
                is_marked: facts[2],
                owner: Owner { uid: id, gid: id },
            });
            let inbound = Flow::Inbound(Inbound {
                destination,
                port,
                by_excluded_interface: facts[0],
                by_rerouted_interface: facts[1],
            });
            for flow in [outbound, inbound] {
                let verdict = decide(&policy, &AllListed(policy), &flow);
                prop_assert!(matches!(verdict, Verdict::Pass(_)), "{:?}", verdict);
            }
        }

        #[test]
        fn a_draining_policy_keeps_what_captured_connections_need(flags: u32) {
            let before = policy(flags, 1337);
            let draining = before.draining();
            prop_assert_eq!(draining.id, before.id);
            prop_assert_eq!(draining.outbound_port, before.outbound_port);
            for kept in [PolicyFlags::IPV6, PolicyFlags::TPROXY, PolicyFlags::HAS_INTERFACES] {
                prop_assert_eq!(draining.flags.contains(kept), before.flags.contains(kept));
            }
        }
    }
}
