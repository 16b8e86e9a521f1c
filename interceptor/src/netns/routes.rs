//! The pod's routing, asked of the kernel.
//!
//! What the programs need to know of a destination is what the kernel's own routing says: the
//! source address, whether the way out is `lo`, and the error if there is no way. That answer is
//! the same for all destinations between two *boundaries*: prefixes at which a route, a rule, an
//! address or one of the kernel's fixed ranges begins or ends. So one address of each piece is
//! asked about (`ip route get`), and the answers make a longest-prefix map.
//!
//! The kernel has the last word on everything that a copy of the tables would have to imitate:
//! `src` hints, the choice of an IPv6 source address, unreachable routes, rules. Not seen is the hash
//! by which multipath routes are chosen.
//!
//! Where a routing rule selects by more than the destination, the answer differs from socket to
//! socket, and no helper of the `connect` hooks asks the kernel for one socket's route
//! (`bpf_fib_lookup` is for packets only: `xdp_func_proto`, `tc_cls_act_func_proto`). Such a copy, and
//! one that would be too large, is in force with a [`Limit`]: it refuses nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    route_limits::{Cause, Limit},
    tables::{self, ip_address},
};

/// How many pieces of one family are copied for one pod. All pods share a table of 2^20: 256 pods of
/// this size fit, with both families.
pub const MAX_PIECES: usize = 2048;

/// What routing does with the destinations of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where the piece begins; a longer prefix inside it has an answer of its own.
    pub prefix: IpNet,
    /// Where packets go.
    pub way: Way,
}

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out through `lo`: the destination is the pod's own.
    Loopback {
        /// The source address that an unbound socket gets.
        source: Option<IpAddr>,
    },
    /// Out through another interface.
    Out {
        /// The source address that an unbound socket gets.
        source: Option<IpAddr>,
        /// The errno that a socket bound to a loopback address gets.
        loopback_error: Option<Errno>,
        /// The index of that interface.
        interface: u32,
    },
    /// Nowhere: `connect` fails with this errno.
    Nowhere(Errno),
}

impl Way {
    /// The source address that an unbound socket gets.
    #[must_use]
    pub const fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Loopback { source } | Self::Out { source, .. } => *source,
            Self::Nowhere(_) => None,
        }
    }

    /// The index of the interface that they leave by.
    #[must_use]
    pub const fn interface(&self) -> Option<u32> {
        match self {
            Self::Loopback { .. } => Some(LOOPBACK_INDEX),
            Self::Out { interface, .. } => Some(*interface),
            Self::Nowhere(_) => None,
        }
    }
}

/// What was asked of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// What routing does with each piece.
    pub answers: Vec<Answer>,
    /// What the answers of a family cannot be relied on for.
    pub limits: Vec<Limit>,
}

/// Asks the kernel about every piece of the IPv4 and, if `ipv6`, the IPv6 addresses.
pub async fn ask(netlink: &Handle, addresses: &[PodAddress], ipv6: bool) -> Result<Copied> {
    let mut copied = Copied::default();
    let families = [IpVersion::V4, IpVersion::V6];
    for version in &families[..if ipv6 { 2 } else { 1 }] {
        let (boundaries, cause) = boundaries(version, addresses)?;
        copied.limits.extend(cause.map(|cause| Limit {
            ipv6: matches!(version, IpVersion::V6),
            cause,
        }));
        copied.answers.extend(ask_all(netlink, &boundaries).await?);
    }
    Ok(copied)
}

/// Asks about one address of each piece.
async fn ask_all(netlink: &Handle, boundaries: &[IpNet]) -> Result<Vec<Answer>> {
    let questions = boundaries.iter().enumerate().filter_map(|(index, prefix)| {
        let destination = representative(*prefix, &boundaries[index + 1..])?;
        Some((*prefix, destination))
    });
    stream::iter(questions)
        .map(async |(prefix, destination)| {
            let way = ask_one(netlink, destination).await?;
            Ok(Answer { prefix, way })
        })
        .buffered(QUESTIONS_AT_ONCE)
        .try_collect()
        .await
}

/// Where the answers of one family can differ, and what limits the copy. If there are too many pieces
/// only the kernel's own: what they say of the source address serves any destination.
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

/// How many answers may wait in the socket's buffer, which has room for some hundreds.
const QUESTIONS_AT_ONCE: usize = 32;

/// Puts prefixes into the order in which each comes right before those inside it.
fn sorted(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    for prefix in &mut prefixes {
        *prefix = prefix.trunc();
    }
    prefixes.sort_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
    prefixes.dedup();
    prefixes
}

/// An address of `prefix` that lies in none of the prefixes inside it, which come right behind it
/// in `rest`.
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

/// Where the kernel itself changes its mind: IPv4's ranges with a meaning, IPv6's scopes
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

/// Where the choice among the pod's own IPv6 addresses may change: rule 8 of RFC 6724 prefers the
/// one that shares the most leading bits with the destination, so wherever two of them part.
fn address_boundaries(addresses: &[IpNet]) -> Vec<IpNet> {
    let mut v6: Vec<_> = addresses
        .iter()
        .filter_map(|address| match address.addr() {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        })
        .collect();
    let mut boundaries: Vec<IpNet> = addresses.iter().map(|a| IpNet::from(a.addr())).collect();
    // Wherever two of them part, two neighbours in their order part too.
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

/// Asks the kernel about one destination.
pub async fn ask_one(netlink: &Handle, destination: IpAddr) -> Result<Way> {
    match ask_from(netlink, destination, None).await? {
        Way::Out {
            source, interface, ..
        } if destination.is_ipv4() => {
            let loopback = Some(Ipv4Addr::LOCALHOST);
            let from_loopback = ask_from(netlink, destination, loopback).await?;
            let loopback_error = match from_loopback {
                Way::Nowhere(errno) => Some(errno),
                Way::Loopback { .. } | Way::Out { .. } => None,
            };
            Ok(Way::Out {
                source,
                loopback_error,
                interface,
            })
        }
        way => Ok(way),
    }
}

/// `ip route get DESTINATION [from SOURCE]`
async fn ask_from(netlink: &Handle, destination: IpAddr, source: Option<Ipv4Addr>) -> Result<Way> {
    let question = RouteNetlinkMessage::GetRoute(question(destination, source));
    let mut message = NetlinkMessage::from(question);
    message.header.flags = NLM_F_REQUEST;
    let mut replies = netlink
        .clone()
        .request(message)
        .context("cannot ask for a route")?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                return Ok(way(&route));
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Ok(Way::Nowhere(Errno::from_raw(-error.raw_code())));
            }
            _ => {}
        }
    }
    bail!("the kernel does not answer for the route to {destination}")
}

fn question(destination: IpAddr, source: Option<Ipv4Addr>) -> RouteMessage {
    match destination {
        IpAddr::V4(v4) => {
            let question = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, Ipv4Net::from(v4).prefix_len());
            match source {
                Some(source) => question.source_prefix(source, 32).build(),
                None => question.build(),
            }
        }
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, Ipv6Net::from(v6).prefix_len())
            .build(),
    }
}

fn way(route: &RouteMessage) -> Way {
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
        RouteType::Broadcast | RouteType::Multicast => Way::Nowhere(Errno::ENETUNREACH),
        RouteType::Unreachable => Way::Nowhere(Errno::EHOSTUNREACH),
        RouteType::Prohibit => Way::Nowhere(Errno::EACCES),
        RouteType::BlackHole => Way::Nowhere(Errno::EINVAL),
        RouteType::Local => Way::Loopback { source },
        _ if interface == Some(LOOPBACK_INDEX) => Way::Loopback { source },
        _ => Way::Out {
            source,
            loopback_error: None,
            interface: interface.unwrap_or(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_families_do_not_contain_one_another() {
        assert_eq!(
            representative_of_first(&["0.0.0.0/0", "::/0"]).as_deref(),
            Some("0.0.0.0")
        );
    }

    #[test]
    fn two_ipv6_addresses_make_boundaries_where_they_part() {
        let addresses = ["fd00:1::2/64", "fd00:3::2/64"].map(|text| text.parse().unwrap());
        let boundaries = sorted(address_boundaries(&addresses));
        let expected = prefixes(&["fd00:1::2/128", "fd00:3::2/128", "fd00::/31", "fd00:2::/31"]);
        assert_eq!(boundaries, expected);
    }

    #[test]
    fn neighbours_part_wherever_any_two_addresses_part() {
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
