//! Routing tables and rules, as the kernel lists them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    route::{RouteAddress, RouteMessage, RouteProtocol},
    rule::RuleMessage,
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

/// `RT_TABLE_LOCAL`
pub const LOCAL_TABLE: u32 = 255;

/// The routes of one family, whatever their table.
pub async fn routes(netlink: &Handle, version: IpVersion) -> Result<Vec<RouteMessage>> {
    let question = match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let routes = netlink.route().get(question).execute();
    routes.try_collect().await.context("cannot list the routes")
}

/// The routes of both families that bear the mark of `protocol`.
pub async fn routes_of(netlink: &Handle, protocol: RouteProtocol) -> Result<Vec<RouteMessage>> {
    let mut all = routes(netlink, IpVersion::V4).await?;
    all.extend(routes(netlink, IpVersion::V6).await?);
    all.retain(|route| route.header.protocol == protocol);
    Ok(all)
}

/// The routing rules of one family.
pub async fn rules(netlink: &Handle, version: IpVersion) -> Result<Vec<RuleMessage>> {
    let rules = netlink.rule().get(version).execute();
    let rules = rules.try_collect().await;
    rules.context("cannot list the routing rules")
}

/// An address as routes hold it.
#[must_use]
pub const fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
