//! Compiles settings into the map entries that the programs look up.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use interceptor_ebpf::{
    Address, GroupKey, Interface, InterfaceFlags, InterfaceKey, Policy, PolicyFlags, PolicyId,
    PolicyLookups, PortFlags, PortPage, PortPageKey, PrefixFlags, PrefixKey, Route, RouteFlags,
    StandInRange, V4Prefix,
};
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;

use crate::{
    netns::{
        interfaces::{self, PodInterface},
        network::PodNetwork,
        routes::{CopiedRoute, RouteLookup},
        stand_in_routes::Sources,
    },
    settings::{
        DnsCapture, InterfacePattern, Mode, OwnerGroups, Settings, Strict,
        ports::{PortRange, PortSelection},
        prefixes::PrefixSelection,
    },
};

/// A policy and its map entries.
pub struct CompiledPolicy {
    /// The policy itself.
    pub policy: Policy,
    /// Its port lists.
    pub ports: Vec<(PortPageKey, PortPage)>,
    /// Its included and excluded prefixes, with their lengths in the 128 bits of an [`Address`].
    pub prefixes: Vec<(PrefixKey, u8, PrefixFlags)>,
    /// The pod's routes, in the same form.
    pub routes: Vec<(PrefixKey, u8, Route)>,
    /// Its owner groups.
    pub groups: Vec<GroupKey>,
    /// The pod's interfaces.
    pub interfaces: Vec<(InterfaceKey, Interface)>,
}

impl CompiledPolicy {
    /// Compiles `settings` for a pod, under `id`.
    #[must_use]
    pub fn new(id: PolicyId, settings: &Settings, network: &PodNetwork, sources: &Sources) -> Self {
        let ports = compile_ports(id, settings);
        let prefixes = compile_prefixes(id, settings);
        let groups = compile_groups(id, settings);
        let excluded = indices(&network.interfaces, &settings.excluded_interfaces);
        let rerouted = indices(&network.interfaces, &settings.rerouted_interfaces);
        let watched = interfaces::watched(&network.interfaces, settings);
        let watched: Vec<_> = watched.iter().map(|interface| interface.index).collect();
        let listed = [&excluded, &rerouted, &watched];
        let has_interfaces = listed.iter().any(|list| !list.is_empty());
        Self {
            policy: Policy {
                id,
                #[cfg(feature = "other-layout")]
                other: [u32::MAX; interceptor_ebpf::OTHER],
                flags: flags(settings, network.ipv6)
                    .with(PolicyFlags::HAS_PREFIXES, !prefixes.is_empty())
                    .with(PolicyFlags::HAS_GROUPS, !groups.is_empty())
                    .with(PolicyFlags::HAS_INTERFACES, has_interfaces)
                    .with(
                        PolicyFlags::ONE_V4,
                        has_one_address(network, sources, Address::UNSPECIFIED_V4),
                    )
                    .with(
                        PolicyFlags::ONE_V6,
                        has_one_address(network, sources, Address::UNSPECIFIED_V6),
                    ),
                outbound_port: settings.outbound_port,
                inbound_port: settings.inbound_port,
                tunnel_port: settings.tunnel_port,
                counters: 0,
                mark: settings.tproxy_mark,
                loopback: V4Prefix::new(settings.loopback.addr(), settings.loopback.prefix_len()),
                fib: network.fib(),
                net: network.state.net,
                first_source_v4: first_source(sources, Address::UNSPECIFIED_V4),
                first_source_v6: first_source(sources, Address::UNSPECIFIED_V6),
                uids: (&settings.proxy_uids).into(),
                gids: (&settings.proxy_gids).into(),
            },
            ports,
            prefixes,
            routes: compile_routes(id, &network.routes, sources, &excluded),
            groups,
            interfaces: compile_interfaces(id, network, &excluded, &rerouted, &watched),
        }
    }
}

/// The lookups of the programs, without maps.
impl PolicyLookups for CompiledPolicy {
    fn port_flags(&self, port: u16) -> PortFlags {
        let key = PortPageKey::of(self.policy.id, port);
        self.ports
            .iter()
            .find(|(page, _)| *page == key)
            .map_or(PortFlags::NONE, |(_, page)| page.flags(port))
    }

    fn prefix_flags(&self, address: Address) -> PrefixFlags {
        self.prefixes
            .iter()
            .filter(|(key, length, _)| shares_prefix(key.address, address, *length))
            .max_by_key(|(_, length, _)| *length)
            .map_or(PrefixFlags::NONE, |(_, _, flags)| *flags)
    }

    fn has_group(&self, gid: u32) -> bool {
        self.groups.iter().any(|group| group.gid == gid)
    }
}

/// Whether the first `length` bits of two addresses are the same.
fn shares_prefix(one: Address, other: Address, length: u8) -> bool {
    let bits = |address: Address| {
        let words = address.words().map(u32::from_be);
        words
            .into_iter()
            .fold(0, |bits, word| bits << 32 | u128::from(word))
    };
    let differing = bits(one) ^ bits(other);
    differing.leading_zeros() >= u32::from(length)
}

fn flags(settings: &Settings, ipv6: bool) -> PolicyFlags {
    let (outbound_all, included): (bool, &[IpNet]) = match &settings.outbound_prefixes {
        PrefixSelection::All => (true, &[]),
        PrefixSelection::Listed(prefixes) => (false, prefixes),
    };
    PolicyFlags::NONE
        .with(PolicyFlags::IPV6, ipv6)
        .with(PolicyFlags::STRICT, !settings.strict.is_off())
        .with(PolicyFlags::STRICT_ALL, settings.strict == Strict::All)
        .with(
            PolicyFlags::INBOUND_ALL,
            settings.inbound_ports == PortSelection::All,
        )
        .with(
            PolicyFlags::INBOUND_LISTED,
            matches!(settings.inbound_ports, PortSelection::Listed(_)),
        )
        .with(PolicyFlags::OUTBOUND_ALL, outbound_all)
        // HasLoopBackIP checks the address, not what the prefix covers.
        .with(
            PolicyFlags::LOOPBACK_INCLUDED,
            included.iter().any(|prefix| prefix.addr().is_loopback()),
        )
        .with(
            PolicyFlags::HAS_OUTBOUND_PORTS,
            !settings.outbound_ports_exclude.is_empty() || !settings.outbound_ports.is_empty(),
        )
        .with(
            PolicyFlags::HAS_INBOUND_PORTS,
            match &settings.inbound_ports {
                PortSelection::None => false,
                PortSelection::All => !settings.inbound_ports_exclude.is_empty(),
                PortSelection::Listed(_) => true,
            },
        )
        .with(PolicyFlags::TPROXY, settings.mode == Mode::Tproxy)
        .with(PolicyFlags::DNS, settings.dns != DnsCapture::Off)
        .with(PolicyFlags::DNS_ALL, settings.dns == DnsCapture::All)
        .with(
            PolicyFlags::GROUPS_INCLUDED,
            matches!(settings.owner_groups, OwnerGroups::Only(_)),
        )
}

/// The keys of a policy's port lists.
pub(crate) fn port_keys(id: PolicyId, settings: &Settings) -> Vec<PortPageKey> {
    let pages = compile_ports(id, settings).into_iter();
    pages.map(|(key, _)| key).collect()
}

/// The keys of a policy's prefixes, with their lengths.
pub(crate) fn prefix_keys(id: PolicyId, settings: &Settings) -> Vec<(PrefixKey, u8)> {
    let prefixes = compile_prefixes(id, settings).into_iter();
    prefixes.map(|(key, length, _)| (key, length)).collect()
}

impl CompiledPolicy {
    /// Marks the routes as not copied, because the map is full.
    pub(crate) const fn disable_routes(&mut self) {
        self.policy.fib = self.policy.fib.without_v4().without_v6();
    }
}

fn compile_groups(policy: PolicyId, settings: &Settings) -> Vec<GroupKey> {
    let (OwnerGroups::AllBut(groups) | OwnerGroups::Only(groups)) = &settings.owner_groups;
    let key = |gid: &u32| GroupKey { policy, gid: *gid };
    groups.as_slice().iter().map(key).collect()
}

/// The interfaces that any of `patterns` matches. iptables compares the names for every packet, this
/// function once for the existing interfaces.
fn indices(interfaces: &[PodInterface], patterns: &[InterfacePattern]) -> Vec<u32> {
    interfaces
        .iter()
        .filter(|interface| interface.is_in(patterns))
        .map(|interface| interface.index)
        .collect()
}

fn compile_ports(id: PolicyId, settings: &Settings) -> Vec<(PortPageKey, PortPage)> {
    let mut pages = BTreeMap::new();
    let mut add = |ranges: &[PortRange], flags| {
        for port in ranges.iter().flat_map(|range| range.ports()) {
            let page = pages.entry(port >> 8).or_insert(PortPage::EMPTY);
            page.add(port, flags);
        }
    };
    add(
        &settings.outbound_ports_exclude,
        PortFlags::OUTBOUND_EXCLUDED,
    );
    add(&settings.outbound_ports, PortFlags::OUTBOUND_INCLUDED);
    match &settings.inbound_ports {
        PortSelection::None => {}
        PortSelection::All => add(&settings.inbound_ports_exclude, PortFlags::INBOUND_EXCLUDED),
        // With a list, -d has no effect.
        PortSelection::Listed(ranges) => add(ranges, PortFlags::INBOUND_INCLUDED),
    }
    pages
        .into_iter()
        .map(|(page, flags)| (PortPageKey::of(id, page << 8), flags))
        .collect()
}

fn compile_prefixes(id: PolicyId, settings: &Settings) -> Vec<(PrefixKey, u8, PrefixFlags)> {
    let included: &[IpNet] = match &settings.outbound_prefixes {
        PrefixSelection::All => &[],
        PrefixSelection::Listed(prefixes) => prefixes,
    };
    let mut flags = BTreeMap::<(IpAddr, u8), PrefixFlags>::new();
    let excluded = &settings.outbound_prefixes_exclude;
    let servers: Vec<_> = match &settings.dns {
        DnsCapture::Off | DnsCapture::All => Vec::new(),
        DnsCapture::Servers(servers) => servers.iter().copied().map(IpNet::from).collect(),
    };
    for (prefixes, flag) in [
        (included, PrefixFlags::INCLUDED),
        (excluded, PrefixFlags::EXCLUDED),
        (&servers, PrefixFlags::DNS_SERVER),
    ] {
        for prefix in prefixes.iter().filter(|prefix| !is_mapped(**prefix)) {
            let entry = flags.entry((prefix.network(), prefix.prefix_len()));
            let entry = entry.or_insert(PrefixFlags::NONE);
            *entry = entry.union(flag);
        }
    }
    if flags.is_empty() {
        return Vec::new();
    }
    // IPv4 addresses are stored as IPv4-mapped ones: without an entry for all of IPv4, an IPv6 prefix
    // that covers ::ffff:0:0/96 would match them.
    flags
        .entry((IpAddr::from([0, 0, 0, 0]), 0))
        .or_insert(PrefixFlags::NONE);
    inherit(flags)
        .into_iter()
        .map(|(prefix, flags)| {
            let (key, length) = trie_key(id, prefix);
            (key, length, flags)
        })
        .collect()
}

/// Adds to each prefix the flags of all that cover it, because a lookup finds only the longest.
fn inherit(flags: BTreeMap<(IpAddr, u8), PrefixFlags>) -> Vec<(IpNet, PrefixFlags)> {
    let mut covering: Vec<(IpNet, PrefixFlags)> = Vec::new();
    let mut inherited = Vec::with_capacity(flags.len());
    for ((network, length), own) in flags {
        let prefix = IpNet::new(network, length).expect("the length came from a prefix");
        while covering
            .last()
            .is_some_and(|(outer, _)| !outer.contains(&prefix))
        {
            covering.pop();
        }
        let outer = covering
            .last()
            .map_or(PrefixFlags::NONE, |(_, flags)| *flags);
        covering.push((prefix, own.union(outer)));
        inherited.push((prefix, own.union(outer)));
    }
    inherited
}

/// Whether an IPv6 prefix lies in `::ffff:0:0/96`. No IPv6 packet has such an address.
fn is_mapped(prefix: IpNet) -> bool {
    let mapped = Ipv6Net::new(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
    matches!(prefix, IpNet::V6(prefix) if mapped.is_ok_and(|mapped| mapped.contains(&prefix)))
}

/// A prefix as a key of the tries, with its length in the address's 128 bits.
fn trie_key(policy: PolicyId, prefix: IpNet) -> (PrefixKey, u8) {
    let length = match prefix {
        IpNet::V4(prefix) => 96 + prefix.prefix_len(),
        IpNet::V6(prefix) => prefix.prefix_len(),
    };
    let address = Address::from(prefix.network());
    (PrefixKey { policy, address }, length)
}

fn compile_routes(
    id: PolicyId,
    routes: &[CopiedRoute],
    sources: &Sources,
    excluded: &[u32],
) -> Vec<(PrefixKey, u8, Route)> {
    routes
        .iter()
        // These are stored as IPv4.
        .filter(|route| !is_mapped(route.prefix))
        .map(|route| {
            let (key, length) = trie_key(id, route.prefix);
            (key, length, compile_route(route, sources, excluded))
        })
        .collect()
}

fn compile_route(route: &CopiedRoute, sources: &Sources, excluded: &[u32]) -> Route {
    let unspecified = if route.prefix.addr().is_ipv4() {
        Address::UNSPECIFIED_V4
    } else {
        Address::UNSPECIFIED_V6
    };
    let source = route.lookup.source();
    let (error, loopback_error) = match route.lookup {
        RouteLookup::Nowhere(errno) => (Some(errno), Some(errno)),
        RouteLookup::Out { loopback_error, .. } => (None, loopback_error),
        RouteLookup::Loopback { .. } => (None, None),
    };
    Route {
        source: source.map_or(unspecified, Address::from),
        error: error.map_or(0, errno_code),
        loopback_error: loopback_error.map_or(0, errno_code),
        source_index: source
            .and_then(|source| sources.index(source))
            .map_or(0, u16::from),
        interface: route.lookup.interface().unwrap_or(0),
        flags: RouteFlags::NONE
            .with(
                RouteFlags::VIA_LOOPBACK,
                matches!(route.lookup, RouteLookup::Loopback { .. }),
            )
            .with(
                RouteFlags::BY_EXCLUDED_INTERFACE,
                route
                    .lookup
                    .interface()
                    .is_some_and(|interface| excluded.contains(&interface)),
            ),
    }
}

/// The source of the first part of the family's range; unspecified if that part is not used.
fn first_source(sources: &Sources, unspecified: Address) -> Address {
    sources
        .first(unspecified)
        .map_or(unspecified, Address::from)
}

/// Whether [`PolicyFlags::ONE_V4`] or [`PolicyFlags::ONE_V6`] holds, for the family of `like`.
fn has_one_address(network: &PodNetwork, sources: &Sources, like: Address) -> bool {
    let Some(only) = sources.first(like) else {
        return false;
    };
    let is_like = |address: IpAddr| address.is_ipv4() == like.is_v4();
    let is_special = |address: IpAddr| {
        let address = Address::from(address);
        address.is_loopback()
            // Never a source.
            || address.is_unspecified()
            || address == Address::PASSTHROUGH_V6
            || address.is_v6_link_local()
            || (!address.is_v4() && StandInRange::contains(address))
    };
    let external = network.interfaces.iter();
    let external = external.filter(|interface| interface.is_up && interface.name != "lo");
    let addresses = network.addresses.iter().map(|address| address.net.addr());
    let mut addresses = addresses.filter(|address| is_like(*address) && !is_special(*address));
    let mut own = network.routes.iter().filter_map(|route| {
        let is_own = matches!(route.lookup, RouteLookup::Loopback { .. });
        is_own.then_some(route.prefix)
    });
    external.count() == 1
        && addresses.next() == Some(only)
        && addresses.next().is_none()
        && own.all(|prefix| {
            let (first, last) = (prefix.network(), prefix.broadcast());
            let is_special = is_special(first) && is_special(last);
            !is_like(first) || is_special || prefix == IpNet::from(only)
        })
}

fn compile_interfaces(
    policy: PolicyId,
    network: &PodNetwork,
    excluded: &[u32],
    rerouted: &[u32],
    watched: &[u32],
) -> Vec<(InterfaceKey, Interface)> {
    let mut interfaces: BTreeMap<_, _> = network
        .interfaces
        .iter()
        .map(|interface| {
            let index = interface.index;
            let reaches = |localhost| network.localhost.contains(index, localhost);
            let flags = InterfaceFlags::NONE
                .with(InterfaceFlags::EXCLUDED, excluded.contains(&index))
                .with(InterfaceFlags::REROUTED, rerouted.contains(&index))
                .with(InterfaceFlags::WATCHED, watched.contains(&index))
                .with(
                    InterfaceFlags::LOCALHOST_V4,
                    reaches(Ipv4Addr::LOCALHOST.into()),
                )
                .with(
                    InterfaceFlags::LOCALHOST_V6,
                    reaches(Ipv6Addr::LOCALHOST.into()),
                );
            let interface = Interface {
                flags,
                ..Interface::NONE
            };
            (index, interface)
        })
        .collect();
    // In reverse, so that the first address of each kind is kept.
    for address in network.addresses.iter().rev() {
        let entry = interfaces
            .entry(address.interface)
            .or_insert(Interface::NONE);
        let address = Address::from(address.net.addr());
        if address.is_v4() {
            entry.v4 = address;
        } else if address.is_v6_link_local() {
            entry.v6_link_local = address;
        } else {
            entry.v6 = address;
        }
    }
    interfaces
        .into_iter()
        .map(|(index, interface)| (InterfaceKey { policy, index }, interface))
        .collect()
}

fn errno_code(errno: Errno) -> u16 {
    u16::try_from(errno as i32).expect("an errno is a small positive number")
}

#[cfg(test)]
mod tests {
    use interceptor_ebpf::NetnsState;

    use super::*;
    use crate::netns::{addresses::PodAddress, localhost_routes::LocalhostRoutes};

    fn inherited(prefixes: &[(&str, PrefixFlags)]) -> Vec<(String, PrefixFlags)> {
        let flags = prefixes
            .iter()
            .map(|(prefix, flags)| {
                let prefix: IpNet = prefix.parse().unwrap();
                ((prefix.network(), prefix.prefix_len()), *flags)
            })
            .collect();
        inherit(flags)
            .into_iter()
            .map(|(prefix, flags)| (prefix.to_string(), flags))
            .collect()
    }

    #[test]
    fn a_prefix_inherits_from_all_that_cover_it() {
        let (included, excluded) = (PrefixFlags::INCLUDED, PrefixFlags::EXCLUDED);
        let all = inherited(&[
            ("10.0.0.0/8", excluded),
            ("10.1.0.0/16", included),
            ("10.1.2.0/24", PrefixFlags::NONE),
            ("11.0.0.0/8", included),
        ]);
        let both = included.union(excluded);
        let flags: Vec<_> = all.iter().map(|(_, flags)| *flags).collect();
        assert_eq!(flags, [excluded, both, both, included]);
    }

    /// Whether a pod has one address, if its `eth0` has `addresses` and `own` is local besides localhost.
    fn has_one(addresses: &[&str], own: &[&str]) -> bool {
        let net = |text: &&str| text.parse::<IpNet>().unwrap();
        let at = |interface| move |net| PodAddress { net, interface };
        let localhost = ["127.0.0.1/8"].iter().map(net).map(at(1));
        let route = |prefix| CopiedRoute {
            prefix,
            lookup: RouteLookup::Loopback { source: None },
        };
        let always = ["0.0.0.0/32", "127.0.0.0/8", "127.128.0.0/15"];
        let network = PodNetwork {
            ipv6: false,
            interfaces: vec![PodInterface::up(1, "lo"), PodInterface::up(2, "eth0")],
            addresses: localhost
                .chain(addresses.iter().map(net).map(at(2)))
                .collect(),
            routes: always.iter().chain(own).map(net).map(route).collect(),
            limits: Vec::new(),
            state: NetnsState::default(),
            localhost: LocalhostRoutes::default(),
        };
        let mut sources = Sources::default();
        sources.add_all(addresses.iter().map(|text| net(text).addr()));
        has_one_address(&network, &sources, Address::UNSPECIFIED_V4)
    }

    #[test]
    fn a_pod_with_one_address_needs_no_lookup() {
        assert!(has_one(&["10.1.0.2/24"], &["10.1.0.2/32"]));
        let two = ["10.1.0.2/24", "10.1.0.3/24"];
        assert!(!has_one(&two, &["10.1.0.2/32", "10.1.0.3/32"]));
        assert!(!has_one(&["10.1.0.2/24"], &["10.1.0.2/32", "10.5.0.0/16"]));
        assert!(!has_one(&[], &[]));
    }

    #[test]
    fn mapped_prefixes_are_neither_family() {
        assert!(is_mapped("::ffff:10.0.0.0/104".parse().unwrap()));
        assert!(!is_mapped("::/0".parse().unwrap()));
        assert!(!is_mapped("10.0.0.0/8".parse().unwrap()));
    }
}
