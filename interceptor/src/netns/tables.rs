//! Routing tables and rules, as the kernel lists them.
//!
//! A pod can have any number of them (`NET_ADMIN`): a list is read only as far as needed.

use std::{net::IpAddr, ops::ControlFlow};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteHeader, RouteMessage, RouteProtocol},
    rule::RuleMessage,
};
use rtnetlink::{
    IpVersion,
    packet_core::{Emitable as _, NlaBuffer, NlasIterator, Parseable as _},
    sys::protocols::NETLINK_ROUTE,
};

use super::raw_netlink::RawNetlink;

/// The sizes of `struct rtmsg`, `struct fib_rule_hdr` and `struct ifinfomsg`.
const ROUTE_HEADER: usize = 12;
const RULE_HEADER: usize = 12;
const LINK_HEADER: usize = 16;

/// `RT_TABLE_LOCAL`
pub(crate) const LOCAL_TABLE: u32 = 255;

/// The maximum number of routes of one protocol that are read: many more than an attach adds.
const MAX_OWN_ROUTES: usize = 1024;

/// The maximum number of routing rules that are read.
pub(crate) const MAX_RULES: usize = 1024;

/// A list that may be truncated.
#[derive(Clone, Debug)]
pub(crate) struct Listed<T> {
    pub items: Vec<T>,
    /// Whether these are all.
    pub is_complete: bool,
}

impl<T> Listed<T> {
    const EMPTY: Self = Self {
        items: Vec::new(),
        is_complete: true,
    };

    /// Appends an item, and breaks if there are `limit` items already.
    fn push(&mut self, item: Option<T>, limit: usize) -> ControlFlow<()> {
        if item.is_some() && self.items.len() == limit {
            self.is_complete = false;
            return ControlFlow::Break(());
        }
        self.items.extend(item);
        ControlFlow::Continue(())
    }
}

/// The destinations of the first `limit` routes of one family in the calling thread's network namespace,
/// in all tables. A default route counts, and has none.
pub(crate) fn destinations(version: &IpVersion, limit: usize) -> Result<Listed<Option<IpNet>>> {
    let mut listed = Listed::EMPTY;
    let request = route_header(version);
    RawNetlink::open(NETLINK_ROUTE)
        .and_then(|netlink| {
            netlink.dump_until(libc::RTM_GETROUTE, &request, &mut |message| {
                listed.push(Some(destination(message)), limit)
            })
        })
        .context("cannot list the routes")?;
    Ok(listed)
}

/// The destination in a route message, without parsing the rest.
pub(super) fn destination(message: &[u8]) -> Option<IpNet> {
    let length = *message.get(1)?;
    let mut attributes = NlasIterator::new(message.get(ROUTE_HEADER..)?);
    let address = attributes.find_map(|attribute| {
        let attribute: NlaBuffer<_> = attribute.ok()?;
        (attribute.kind() == libc::RTA_DST).then(|| address(attribute.value()))
    })??;
    IpNet::new(address, length).ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The routes of both families with this protocol, in the calling thread's network namespace.
pub(crate) fn routes_of(protocol: RouteProtocol) -> Result<Vec<RouteMessage>> {
    let mut all = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let filter = RouteHeader {
            protocol,
            ..RouteHeader::default()
        };
        all.extend(filtered(&version, &filter)?);
    }
    all.retain(|route| route.header.protocol == protocol);
    Ok(all)
}

/// The routes of one family that match `filter`. The kernel filters them, so the others cause no
/// messages.
fn filtered(version: &IpVersion, filter: &RouteHeader) -> Result<Vec<RouteMessage>> {
    let mut listed = Listed::EMPTY;
    let filter = RouteHeader {
        address_family: family(version),
        ..filter.clone()
    };
    let mut request = vec![0; filter.buffer_len()];
    filter.emit(&mut request);
    RawNetlink::open_strict(NETLINK_ROUTE)
        .and_then(|netlink| {
            netlink.dump_until(libc::RTM_GETROUTE, &request, &mut |message| {
                listed.push(RouteMessage::parse(message).ok(), MAX_OWN_ROUTES)
            })
        })
        .context("cannot list the routes")?;
    Ok(listed.items)
}

/// Whether the table `local` has a route to this single address.
pub(crate) fn is_local(address: IpAddr) -> Result<bool> {
    let version = match address {
        IpAddr::V4(_) => IpVersion::V4,
        IpAddr::V6(_) => IpVersion::V6,
    };
    let wanted = Some(IpNet::from(address));
    let mut request = route_header(&version);
    // `rtm_table`, by which the kernel filters for a strict socket.
    request[4] = libc::RT_TABLE_LOCAL;
    let mut found = false;
    RawNetlink::open_strict(NETLINK_ROUTE)
        .and_then(|netlink| {
            netlink.dump_until(libc::RTM_GETROUTE, &request, &mut |message| {
                found = destination(message) == wanted;
                if found {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        })
        .context("cannot list the local routes")?;
    Ok(found)
}

/// The first [`MAX_RULES`] routing rules of one family in the calling thread's network namespace.
pub(crate) fn rules(version: &IpVersion) -> Result<Listed<RuleMessage>> {
    let mut listed = Listed::EMPTY;
    let mut request = [0; RULE_HEADER];
    request[0] = family(version).into();
    RawNetlink::open(NETLINK_ROUTE)
        .and_then(|netlink| {
            netlink.dump_until(libc::RTM_GETRULE, &request, &mut |message| {
                listed.push(RuleMessage::parse(message).ok(), MAX_RULES)
            })
        })
        .context("cannot list the routing rules")?;
    Ok(listed)
}

/// Whether the calling thread's network namespace has at most `limit` interfaces, and at most `limit`
/// routes in each family. (Each address has a route.)
pub(crate) fn are_at_most(limit: usize) -> Result<bool> {
    for version in [IpVersion::V4, IpVersion::V6] {
        if !destinations(&version, limit)?.is_complete {
            return Ok(false);
        }
    }
    let mut interfaces = Listed::EMPTY;
    RawNetlink::open(NETLINK_ROUTE)
        .and_then(|netlink| {
            let request = [0; LINK_HEADER];
            netlink.dump_until(libc::RTM_GETLINK, &request, &mut |_| {
                interfaces.push(Some(()), limit)
            })
        })
        .context("cannot list the interfaces")?;
    Ok(interfaces.is_complete)
}

fn route_header(version: &IpVersion) -> [u8; ROUTE_HEADER] {
    let mut header = [0; ROUTE_HEADER];
    header[0] = family(version).into();
    header
}

const fn family(version: &IpVersion) -> AddressFamily {
    match version {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    }
}

/// The IP address in a route's attribute.
#[must_use]
pub(crate) const fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
