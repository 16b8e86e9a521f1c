//! The routes that make localhost reachable through every interface of the pod.
//!
//! A captured DNS query goes to the proxy's DNS server at 127.0.0.1 or `::1`. It may name an interface
//! (`IP_UNICAST_IF`, `IPV6_UNICAST_IF`, an index in `IP_PKTINFO` or `IPV6_PKTINFO`), as every query of
//! systemd-resolved does. The kernel then considers only the routes through that interface
//! (`fib_lookup_good_nhc`, `rt6_score_route`). Localhost's own route is through `lo`, so the query would
//! leave the pod by the default route. (iptables' REDIRECT looks the route up again, without the
//! interface.) A local route through the interface delivers the query to the pod itself.
//!
//! No packet from outside uses such a route: the kernel drops packets that a link receives to or from
//! localhost before it looks up a route (`ip_route_input_slow`, unless `route_localnet` is on, and
//! `ip6_rcv_core`). Other lookups find the routes of `lo` first: their metric is 0.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{
    addresses::LOOPBACK_INDEX,
    interfaces::PodInterface,
    netlink::errno,
    tables::{self, LOCAL_TABLE, ip_address},
};
use crate::settings::{DnsCapture, Settings};

/// Marks our routes (`ip route show table local proto 152`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(152);

/// The maximum number of interfaces that get routes, the first in the kernel's order. A captured query
/// that names another one is refused.
const MAX_INTERFACES: usize = 64;

const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The localhost addresses that are local through an interface, with that interface's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalhostRoutes(BTreeSet<(u32, IpAddr)>);

impl LocalhostRoutes {
    /// Whether `localhost` is local through `interface`.
    #[must_use]
    pub fn contains(&self, interface: u32, localhost: IpAddr) -> bool {
        self.0.contains(&(interface, localhost))
    }
}

/// Reads the routes that [`install`] has added.
pub fn read() -> Result<LocalhostRoutes> {
    let routes = tables::routes_of(PROTOCOL)?;
    Ok(LocalhostRoutes(
        routes.iter().filter_map(localhost_route).collect(),
    ))
}

fn localhost_route(route: &RouteMessage) -> Option<(u32, IpAddr)> {
    let is_local = route.header.kind == RouteType::Local
        && u32::from(route.header.table) == LOCAL_TABLE
        && is_host(route);
    let interface = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) if *index != LOOPBACK_INDEX => Some(*index),
            _ => None,
        })?;
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip_address(address),
            _ => None,
        })?;
    (is_local && LOCALHOST.contains(&destination)).then_some((interface, destination))
}

const fn is_host(route: &RouteMessage) -> bool {
    matches!(route.header.destination_prefix_length, 32 | 128)
}

/// The localhost addresses that `settings` send queries to.
#[must_use]
pub fn needed(settings: &Settings, ipv6: bool) -> &'static [IpAddr] {
    match (&settings.dns, ipv6) {
        (DnsCapture::Off, _) => &[],
        (_, false) => &LOCALHOST[..1],
        (_, true) => &LOCALHOST,
    }
}

/// Adds the missing routes to the `needed` addresses through those of `interfaces` that are up.
pub async fn install(
    netlink: &Handle,
    interfaces: &[PodInterface],
    needed: &[IpAddr],
) -> Result<()> {
    let installed = read()?;
    let up = interfaces
        .iter()
        .filter(|interface| interface.is_up && interface.index != LOOPBACK_INDEX);
    for interface in up.take(MAX_INTERFACES) {
        for localhost in needed {
            if !installed.contains(interface.index, *localhost) {
                add(netlink, *localhost, interface).await?;
            }
        }
    }
    Ok(())
}

async fn add(netlink: &Handle, localhost: IpAddr, interface: &PodInterface) -> Result<()> {
    let message = route(localhost, interface.index);
    let result = netlink.route().add(message).execute().await;
    match result {
        Err(error) if is_without_family(&error) => Ok(()),
        result => result.with_context(|| {
            let name = &interface.name;
            format!("cannot add a local route to {localhost} through the interface {name}")
        }),
    }
}

/// Whether the interface was deleted, is down, or lacks the family: nothing is sent through it then.
fn is_without_family(error: &rtnetlink::Error) -> bool {
    const TOLERATED: [Errno; 3] = [Errno::ENODEV, Errno::ENETDOWN, Errno::EACCES];
    errno(error).is_some_and(|number| TOLERATED.contains(&Errno::from_raw(number)))
}

/// `ip route add local LOCALHOST dev INTERFACE table local metric INDEX proto 152`. (IPv4 has no two
/// routes to one destination with the same metric.)
fn route(localhost: IpAddr, interface: u32) -> RouteMessage {
    match localhost {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .scope(RouteScope::Host)
            .output_interface(interface)
            .priority(interface)
            .kind(RouteType::Local)
            .protocol(PROTOCOL)
            .table_id(LOCAL_TABLE)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .output_interface(interface)
            .priority(interface)
            .kind(RouteType::Local)
            .protocol(PROTOCOL)
            .table_id(LOCAL_TABLE)
            .build(),
    }
}

/// Removes the routes that [`install`] has added, except those to the `needed` addresses. Returns
/// whether there were any.
pub async fn retire(netlink: &Handle, needed: &[IpAddr]) -> Result<bool> {
    let is_needed = |route: &RouteMessage| {
        localhost_route(route).is_some_and(|(_, localhost)| needed.contains(&localhost))
    };
    let mut routes = tables::routes_of(PROTOCOL)?;
    routes.retain(|route| !is_needed(route));
    let has_removed = !routes.is_empty();
    for route in routes {
        let request = netlink.route().del(route);
        request
            .execute()
            .await
            .context("cannot delete a local route to localhost through an interface")?;
    }
    Ok(has_removed)
}
