//! A copy of the pod's routes, made by route lookups in the kernel.
//!
//! The programs need three things for a destination: the source address, whether the route leaves
//! through `lo`, and the error if there is no route. These are the same for all destinations between
//! two *boundaries*: prefixes at which a route, a rule, an address or one of the kernel's fixed ranges
//! starts or ends. So one address of each piece is looked up (`ip route get`), and the results make a
//! longest-prefix map.
//!
//! Therefore the kernel itself decides everything that a copy of the tables would have to imitate: `src`
//! hints, the choice of an IPv6 source address, unreachable routes, rules. Only the hash that selects
//! among multipath routes is not copied.
//!
//! If a routing rule selects by more than the destination, the route differs from socket to socket,
//! and no helper of the `connect` hooks looks up one socket's route (`bpf_fib_lookup` is for packets
//! only: `xdp_func_proto`, `tc_cls_act_func_proto`). Such a copy, and one that would be too large, is
//! used with a [`Limit`]: it refuses no connection.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};
use nix::errno::Errno;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};

use super::{
    addresses::{LOOPBACK_INDEX, PodAddress},
    policy_rules,
    route_limits::{Cause, Limit, MAX_PIECES},
    tables::{self, ip_address},
};

/// The route of one piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CopiedRoute {
    /// The start of the piece; a longer prefix inside it has its own entry.
    pub prefix: IpNet,
    /// The result of the lookup.
    pub lookup: RouteLookup,
}

/// The text is part of the digest in records: with another one, the networks of pods that an older build
/// attached would look changed.
impl fmt::Debug for CopiedRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Answer");
        text.field("prefix", &self.prefix)
            .field("way", &self.lookup)
            .finish()
    }
}

/// The result of a route lookup for a destination. Its `Debug` text is part of the digest, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLookup {
    /// Through `lo`: the destination is the pod's own.
    Loopback {
        /// The source address that an unbound socket gets.
        source: Option<IpAddr>,
    },
    /// Through another interface.
    Out {
        /// The source address that an unbound socket gets.
        source: Option<IpAddr>,
        /// The errno that a socket bound to a loopback address gets.
        loopback_error: Option<Errno>,
        /// The index of that interface.
        interface: u32,
    },
    /// No route: `connect` fails with this errno.
    Nowhere(Errno),
}

impl RouteLookup {
    /// The source address that an unbound socket gets.
    #[must_use]
    pub const fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Loopback { source } | Self::Out { source, .. } => *source,
            Self::Nowhere(_) => None,
        }
    }

    /// The index of the outgoing interface.
    #[must_use]
    pub const fn interface(&self) -> Option<u32> {
        match self {
            Self::Loopback { .. } => Some(LOOPBACK_INDEX),
            Self::Out { interface, .. } => Some(*interface),
            Self::Nowhere(_) => None,
        }
    }
}

/// The copy of a pod's routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CopiedRoutes {
    /// The route of each piece.
    pub routes: Vec<CopiedRoute>,
    /// Why the copy is incomplete, if it is.
    pub limits: Vec<Limit>,
}

/// Looks up every piece of the IPv4 and, if `ipv6`, the IPv6 addresses.
pub(crate) async fn copy(
    netlink: &Handle,
    addresses: &[PodAddress],
    ipv6: bool,
) -> Result<CopiedRoutes> {
    let mut copied = CopiedRoutes::default();
    let families = [IpVersion::V4, IpVersion::V6];
    for version in &families[..if ipv6 { 2 } else { 1 }] {
        let (boundaries, cause) = boundaries(version, addresses)?;
        copied.limits.extend(cause.map(|cause| Limit {
            ipv6: matches!(version, IpVersion::V6),
            cause,
        }));
        copied
            .routes
            .extend(look_up_all(netlink, &boundaries).await?);
    }
    Ok(copied)
}

/// Looks up one address of each piece.
async fn look_up_all(netlink: &Handle, boundaries: &[IpNet]) -> Result<Vec<CopiedRoute>> {
    let lookups = boundaries.iter().enumerate().filter_map(|(index, prefix)| {
        let destination = representative(*prefix, &boundaries[index + 1..])?;
        Some((*prefix, destination))
    });
    stream::iter(lookups)
        .map(async |(prefix, destination)| {
            let lookup = look_up(netlink, destination).await?;
            Ok(CopiedRoute { prefix, lookup })
        })
        .buffered(MAX_CONCURRENT_LOOKUPS)
        .try_collect()
        .await
}

/// The boundaries of one family, and what limits the copy. If there are too many pieces, only the
/// kernel's own boundaries: the source addresses of their routes are valid for any destination.
fn boundaries(
    version: &IpVersion,
    addresses: &[PodAddress],
) -> Result<(Vec<IpNet>, Option<Cause>)> {
    let v4 = matches!(version, IpVersion::V4);
    let is_of_family = |prefix: &IpNet| prefix.addr().is_ipv4() == v4;
    let mut fixed = fixed_boundaries();
    fixed.retain(is_of_family);
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| address.net)
        .filter(is_of_family)
        .collect();
    let routes = tables::destinations(version, MAX_PIECES)?;
    let rules = tables::rules(version)?;
    let is_complete = routes.is_complete && rules.is_complete && addresses.len() <= MAX_PIECES;
    if !is_complete {
        return Ok((sorted(fixed), Some(Cause::TooMany)));
    }
    let mut all = fixed.clone();
    all.extend(address_boundaries(&addresses));
    all.extend(routes.items.into_iter().flatten().filter(is_of_family));
    all.extend(rules.items.iter().filter_map(policy_rules::destination));
    let all = sorted(all);
    if all.len() > MAX_PIECES {
        return Ok((sorted(fixed), Some(Cause::TooMany)));
    }
    Ok((all, rules.items.iter().find_map(policy_rules::selects_more)))
}

/// The socket's buffer holds several hundred responses.
const MAX_CONCURRENT_LOOKUPS: usize = 32;

/// Puts prefixes into the order in which each comes right before those inside it.
fn sorted(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    for prefix in &mut prefixes {
        *prefix = prefix.trunc();
    }
    prefixes.sort_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
    prefixes.dedup();
    prefixes
}

/// An address of `prefix` that is in none of its inner prefixes, which follow it in `rest`.
fn representative(prefix: IpNet, rest: &[IpNet]) -> Option<IpAddr> {
    let mut candidate = prefix.network();
    for inner in rest.iter().take_while(|inner| prefix.contains(*inner)) {
        if candidate < inner.network() {
            break;
        }
        if inner.contains(&candidate) {
            candidate = next(inner.broadcast())?;
        }
    }
    prefix.contains(&candidate).then_some(candidate)
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|bits| Ipv6Addr::from(bits).into()),
    }
}

/// The boundaries of the kernel itself: IPv4's ranges with a meaning, IPv6's scopes
/// (`__ipv6_addr_type`) and the labels of its source address selection (`ip6addrlbl_init_table`).
fn fixed_boundaries() -> Vec<IpNet> {
    [
        "0.0.0.0/0",
        "0.0.0.0/8",
        // This host; the rest of 0.0.0.0/8 is not.
        "0.0.0.0/32",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/0",
        "::/96",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "2001::/32",
        "2001:10::/28",
        "2002::/16",
        "3ffe::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ]
    .iter()
    .map(|prefix| prefix.parse().expect("a constant prefix"))
    .collect()
}

/// The prefixes at which the choice among the pod's own IPv6 addresses may change: rule 8 of RFC 6724
/// prefers the address that shares most leading bits with the destination, so wherever two of them
/// differ.
fn address_boundaries(addresses: &[IpNet]) -> Vec<IpNet> {
    let mut v6: Vec<_> = addresses
        .iter()
        .filter_map(|address| match address.addr() {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        })
        .collect();
    let mut boundaries: Vec<IpNet> = addresses.iter().map(|a| IpNet::from(a.addr())).collect();
    // Wherever two of them differ, two neighbours in their order differ too.
    v6.sort_unstable();
    for pair in v6.windows(2) {
        let shared = (pair[0].to_bits() ^ pair[1].to_bits()).leading_zeros();
        let length = u8::try_from(shared + 1).unwrap_or(128).min(128);
        boundaries.extend(
            pair.iter()
                .filter_map(|address| Ipv6Net::new(*address, length).ok())
                .map(IpNet::from),
        );
    }
    boundaries
}

pub(crate) async fn look_up(netlink: &Handle, destination: IpAddr) -> Result<RouteLookup> {
    match look_up_from(netlink, destination, None).await? {
        RouteLookup::Out {
            source, interface, ..
        } if destination.is_ipv4() => {
            let loopback = Some(Ipv4Addr::LOCALHOST);
            let from_loopback = look_up_from(netlink, destination, loopback).await?;
            let loopback_error = match from_loopback {
                RouteLookup::Nowhere(errno) => Some(errno),
                RouteLookup::Loopback { .. } | RouteLookup::Out { .. } => None,
            };
            Ok(RouteLookup::Out {
                source,
                loopback_error,
                interface,
            })
        }
        route => Ok(route),
    }
}

/// `ip route get DESTINATION [from SOURCE]`
async fn look_up_from(
    netlink: &Handle,
    destination: IpAddr,
    source: Option<Ipv4Addr>,
) -> Result<RouteLookup> {
    let request = RouteNetlinkMessage::GetRoute(request(destination, source));
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST;
    let mut replies = netlink
        .clone()
        .request(message)
        .context("cannot request a route")?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                return Ok(lookup_of(&route));
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Ok(RouteLookup::Nowhere(Errno::from_raw(
                    error.raw_code().saturating_neg(),
                )));
            }
            _ => {}
        }
    }
    bail!("the kernel returned no route to {destination}")
}

fn request(destination: IpAddr, source: Option<Ipv4Addr>) -> RouteMessage {
    match destination {
        IpAddr::V4(v4) => {
            let request = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, Ipv4Net::from(v4).prefix_len());
            match source {
                Some(source) => request.source_prefix(source, 32).build(),
                None => request.build(),
            }
        }
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, Ipv6Net::from(v6).prefix_len())
            .build(),
    }
}

pub(super) fn lookup_of(route: &RouteMessage) -> RouteLookup {
    let find = |pick: fn(&RouteAttribute) -> Option<IpAddr>| route.attributes.iter().find_map(pick);
    let source = find(|attribute| match attribute {
        RouteAttribute::PrefSource(source) => ip_address(source),
        _ => None,
    });
    let interface = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
    match route.header.kind {
        // tcp_v4_connect and tcp_v6_connect refuse both.
        RouteType::Broadcast | RouteType::Multicast => RouteLookup::Nowhere(Errno::ENETUNREACH),
        RouteType::Unreachable => RouteLookup::Nowhere(Errno::EHOSTUNREACH),
        RouteType::Prohibit => RouteLookup::Nowhere(Errno::EACCES),
        RouteType::BlackHole => RouteLookup::Nowhere(Errno::EINVAL),
        RouteType::Local => RouteLookup::Loopback { source },
        _ if interface == Some(LOOPBACK_INDEX) => RouteLookup::Loopback { source },
        _ => RouteLookup::Out {
            source,
            loopback_error: None,
            interface: interface.unwrap_or(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_text_for_the_digest_has_not_changed() {
        let route = CopiedRoute {
            prefix: "10.0.0.0/8".parse().unwrap(),
            lookup: RouteLookup::Out {
                source: Some([10, 1, 0, 2].into()),
                loopback_error: Some(Errno::EINVAL),
                interface: 2,
            },
        };
        assert_eq!(
            format!("{route:?}"),
            "Answer { prefix: 10.0.0.0/8, way: Out { source: Some(10.1.0.2), loopback_error: \
             Some(EINVAL), interface: 2 } }"
        );
    }

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        sorted(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn representative_of_first(texts: &[&str]) -> Option<String> {
        let prefixes = prefixes(texts);
        representative(prefixes[0], &prefixes[1..]).map(|address| address.to_string())
    }

    #[test]
    fn a_representative_lies_in_no_inner_prefix() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&["10.0.0.0/8"], Some("10.0.0.0")),
            (&["10.0.0.0/8", "10.0.0.0/16"], Some("10.1.0.0")),
            (
                &["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/16"],
                Some("10.128.0.0"),
            ),
            (&["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"], None),
            (
                &["0.0.0.0/0", "0.0.0.0/1", "255.255.255.255/32"],
                Some("128.0.0.0"),
            ),
        ];
        for (texts, expected) in cases {
            assert_eq!(
                representative_of_first(texts).as_deref(),
                expected,
                "{texts:?}"
            );
        }
    }

    #[test]
    fn the_families_do_not_contain_each_other() {
        assert_eq!(
            representative_of_first(&["0.0.0.0/0", "::/0"]).as_deref(),
            Some("0.0.0.0")
        );
    }

    #[test]
    fn two_ipv6_addresses_make_boundaries_where_they_differ() {
        let addresses = ["fd00:1::2/64", "fd00:3::2/64"].map(|text| text.parse().unwrap());
        let boundaries = sorted(address_boundaries(&addresses));
        let expected = prefixes(&["fd00:1::2/128", "fd00:3::2/128", "fd00::/31", "fd00:2::/31"]);
        assert_eq!(boundaries, expected);
    }

    #[test]
    fn neighbours_have_the_boundaries_of_all_pairs() {
        let texts = [
            "fd00:1::2",
            "fd00:3::2",
            "fd00:1::9",
            "2001:db8::1",
            "fe80::1",
        ];
        let addresses: Vec<Ipv6Addr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let nets: Vec<_> = addresses
            .iter()
            .map(|a| IpNet::from(IpAddr::V6(*a)))
            .collect();
        let mut expected = nets.clone();
        for one in &addresses {
            for other in addresses.iter().filter(|other| *other != one) {
                let shared = (one.to_bits() ^ other.to_bits()).leading_zeros();
                let length = u8::try_from(shared + 1).unwrap();
                expected.push(Ipv6Net::new(*one, length).unwrap().into());
            }
        }
        assert_eq!(sorted(address_boundaries(&nets)), sorted(expected));
    }
}
