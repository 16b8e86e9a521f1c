//! The routes that make stand-ins reachable, each part of the range from its own source address.

use std::{
    collections::BTreeMap,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{
    Address, SOURCELESS, SOURCES, STAND_IN_V4_PREFIX_LEN, STAND_IN_V6_PREFIX_LEN, StandInRange,
};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{
    addresses::LOOPBACK_INDEX,
    routes::{self, RouteLookup},
    tables::{self, LOCAL_TABLE, ip_address},
    tcp_sockets,
};

/// Marks our routes (`ip route show table local proto 153`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(153);

/// The source address of each part of the range, for each family. A source keeps its part until the
/// pod is detached: sockets are connected through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    v4: BTreeMap<u8, IpAddr>,
    v6: BTreeMap<u8, IpAddr>,
    /// Whether forwarded connections have a part: in IPv6 the one without a source.
    forwarded: bool,
}

impl Sources {
    /// The part of `source`. A connection whose source has no part gets the first part's address.
    #[must_use]
    pub fn index(&self, source: IpAddr) -> Option<u8> {
        self.iter()
            .find(|(_, part)| *part == source)
            .map(|(index, _)| index)
    }

    /// The source of the first part, in the family of `like`.
    #[must_use]
    pub fn first(&self, like: Address) -> Option<IpAddr> {
        let parts = if like.is_v4() { &self.v4 } else { &self.v6 };
        parts.get(&0).copied()
    }

    /// Assigns a free part, if any, to each source without one. Returns whether this changed anything.
    /// (A link-local address cannot be the source of a route through `lo`.)
    pub fn add_all(&mut self, sources: impl Iterator<Item = IpAddr>) -> bool {
        let before = self.clone();
        for source in sources {
            let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !link_local && self.index(source).is_none() {
                let parts = self.family(source);
                if let Some(free) = (0..SOURCES).find(|index| !parts.contains_key(index)) {
                    parts.insert(free, source);
                }
            }
        }
        *self != before
    }

    /// Assigns a part to forwarded connections. Returns whether they had none.
    pub const fn add_forwarded(&mut self) -> bool {
        !mem::replace(&mut self.forwarded, true)
    }

    fn family(&mut self, of: IpAddr) -> &mut BTreeMap<u8, IpAddr> {
        match of {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u8, IpAddr)> {
        let both = self.v4.iter().chain(&self.v6);
        both.map(|(index, source)| (*index, *source))
    }
}

/// Reads the parts that are installed.
pub fn read() -> Result<Sources> {
    let mut sources = Sources::default();
    for route in tables::routes_of(PROTOCOL)? {
        let mut destination = None;
        let mut source = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip_address(address),
                RouteAttribute::PrefSource(address) => source = ip_address(address),
                _ => {}
            }
        }
        sources.forwarded |= destination == Some(forwarded_range().addr().into());
        if let (Some(destination), Some(source)) = (destination, source)
            && let Some(index) = part_at(destination)
        {
            sources.family(source).insert(index, source);
        }
    }
    Ok(sources)
}

/// The part that starts at `address`.
fn part_at(address: IpAddr) -> Option<u8> {
    let address = Address::from(address);
    (0..SOURCES).find(|index| StandInRange::of_source(*index, address) == address)
}

/// The problem if packets to the stand-ins are not delivered to the pod itself.
pub const ROUTES_LOST: &str = "the pod's routes to the stand-ins (`ip route show table local proto \
                               153`) were removed, so captured connections are refused: attach the \
                               pod again, or use `interceptor run` or the agent, which restore them";

/// The route to the stand-ins for packets from `source`, in the family of `like`: their routes may
/// have been removed.
pub async fn route_from(
    netlink: &Handle,
    source: Option<IpAddr>,
    like: IpAddr,
) -> Result<RouteLookup> {
    let sources = read()?;
    let index = source.and_then(|source| sources.index(source)).unwrap_or(0);
    let stand_in = StandInRange::of_source(index, Address::from(like));
    routes::look_up(netlink, stand_in.into()).await
}

/// The route to the stand-ins of the first part, in the family of `like`.
pub async fn first_route(netlink: &Handle, like: IpAddr) -> Result<RouteLookup> {
    let stand_in = StandInRange::of_source(0, Address::from(like));
    routes::look_up(netlink, stand_in.into()).await
}

/// Installs every missing part, first the one without a source. (IPv4's is in 127.0.0.0/8, which is
/// always local.) Existing parts are kept: the kernel refuses to replace a route whose source address the
/// pod has lost.
pub async fn install(netlink: &Handle, sources: &Sources) -> Result<()> {
    let installed = read()?;
    if !sources.v6.is_empty() {
        netlink
            .route()
            .add(sourceless_part())
            .replace()
            .execute()
            .await
            .context("cannot add the route of the stand-ins without a source address (to lo)")?;
    }
    for (index, source) in sources.iter() {
        if installed.index(source) == Some(index) {
            continue;
        }
        netlink
            .route()
            .add(part(index, source))
            .replace()
            .execute()
            .await
            .with_context(|| {
                format!("cannot add the route of the stand-ins with the source {source} (to lo)")
            })?;
    }
    if sources.forwarded {
        let range = forwarded_range();
        // No process of the pod connects to this range, so the source does not matter.
        let route = local_v4(range.addr(), range.prefix_len(), Ipv4Addr::LOCALHOST);
        netlink
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .with_context(|| format!("cannot add the route of the stand-ins in {range} (to lo)"))?;
    }
    Ok(())
}

/// The IPv4 range of forwarded connections.
fn forwarded_range() -> Ipv4Net {
    StandInRange::V4_FORWARDED
        .parse()
        .expect("a constant prefix")
}

/// Removes every part, except IPv6's while open connections use it: without a route they would hang.
/// (IPv4's is in 127.0.0.0/8, which is always local; forwarded connections break, because no program
/// rewrites their packets any more.) Returns whether IPv6's is kept.
pub async fn remove(netlink: &Handle) -> Result<bool> {
    let keep_v6 = has_open_v6_connections()?;
    for route in tables::routes_of(PROTOCOL)? {
        if keep_v6 && route.header.address_family == AddressFamily::Inet6 {
            continue;
        }
        netlink
            .route()
            .del(route)
            .execute()
            .await
            .context("cannot delete a route of the stand-ins")?;
    }
    Ok(keep_v6)
}

/// Whether a TCP connection of the calling thread's network namespace has an end in the IPv6 range.
fn has_open_v6_connections() -> Result<bool> {
    let is_in_range = |end: IpAddr| end.is_ipv6() && StandInRange::contains(Address::from(end));
    Ok(tcp_sockets::open()?
        .iter()
        .any(|connection| is_in_range(connection.local) || is_in_range(connection.remote)))
}

/// `ip route add local PART dev lo src SOURCE table local proto 153`
fn part(index: u8, source: IpAddr) -> RouteMessage {
    let first = IpAddr::from(StandInRange::of_source(index, Address::from(source)));
    match (first, source) {
        (IpAddr::V4(first), IpAddr::V4(source)) => local_v4(first, STAND_IN_V4_PREFIX_LEN, source),
        (IpAddr::V6(first), IpAddr::V6(source)) => part_v6(first).pref_source(source).build(),
        _ => unreachable!("a part is of its source's family"),
    }
}

/// `ip route add local PART dev lo table local proto 153`
fn sourceless_part() -> RouteMessage {
    let first = StandInRange::of_source(SOURCELESS, Address::LOCALHOST_V6);
    match IpAddr::from(first) {
        IpAddr::V6(first) => part_v6(first).build(),
        IpAddr::V4(_) => unreachable!("a part has the requested family"),
    }
}

fn part_v6(first: Ipv6Addr) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(first, STAND_IN_V6_PREFIX_LEN)
        .output_interface(LOOPBACK_INDEX)
        .kind(RouteType::Local)
        .protocol(PROTOCOL)
        .table_id(LOCAL_TABLE)
}

fn local_v4(network: Ipv4Addr, length: u8, source: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network, length)
        .pref_source(source)
        .output_interface(LOOPBACK_INDEX)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(PROTOCOL)
        .table_id(LOCAL_TABLE)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> [IpAddr; N] {
        texts.map(|text| text.parse().unwrap())
    }

    #[test]
    fn a_source_keeps_its_part() {
        let mut sources = Sources::default();
        let [a, b, c] = addresses(["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert!(sources.add_all([a, b, a, c].into_iter()));
        assert!(!sources.add_all([b, c].into_iter()));
        assert_eq!(
            [a, b, c].map(|source| sources.index(source)),
            [Some(0), Some(1), Some(0)]
        );
    }

    #[test]
    fn sources_beyond_the_number_of_parts_get_none() {
        let mut sources = Sources::default();
        let all = (0..100).map(|host| Ipv4Addr::new(10, 0, 0, host).into());
        sources.add_all(all.clone());
        let assigned = all
            .filter(|source| sources.index(*source).is_some())
            .count();
        assert_eq!(assigned, usize::from(SOURCES));
    }

    #[test]
    fn a_part_is_found_by_its_first_address() {
        for text in ["127.128.0.0", "fd69:6365:7074::"] {
            assert_eq!(part_at(text.parse().unwrap()), Some(0));
        }
        assert_eq!(part_at("127.130.0.0".parse().unwrap()), Some(1));
        assert_eq!(part_at("127.128.0.1".parse().unwrap()), None);
    }
}
