//! The routing rule that keeps packets to IPv6 stand-ins in the pod.
//!
//! Their routes are in the table `local`. A lookup may miss them: if another program has removed them,
//! or for a socket that is bound to an interface other than `lo`, whose lookups skip them
//! (`RT6_LOOKUP_F_IFACE`). The next table has the default route. This rule, after that of the table
//! `local`, rejects those packets instead. (IPv4's stand-ins are in 127.0.0.0/8.)

use anyhow::{Context as _, Result};
use interceptor_ebpf::StandInRange;
use ipnet::Ipv6Net;
use netlink_packet_route::{
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion};

use super::tables;

/// Marks our rule (`ip -6 rule show proto 153`); the routes have the same mark.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(153);

/// Adds the rule unless it exists.
pub(crate) async fn install(netlink: &Handle) -> Result<()> {
    if !ours()?.is_empty() {
        return Ok(());
    }
    let range: Ipv6Net = StandInRange::V6.parse().expect("a constant prefix");
    // Without a priority, the kernel inserts it right after the first rule, that of the table `local`.
    let mut request = netlink
        .rule()
        .add()
        .v6()
        .destination_prefix(range.addr(), range.prefix_len())
        .action(RuleAction::Unreachable);
    let protocol = RuleAttribute::Protocol(PROTOCOL);
    request.message_mut().attributes.push(protocol);
    let result = request.execute().await;
    result.with_context(|| format!("cannot add the routing rule `to {range} unreachable`"))
}

/// Removes the rule, if it exists.
pub(crate) async fn remove(netlink: &Handle) -> Result<()> {
    for rule in ours()? {
        let request = netlink.rule().del(rule);
        request
            .execute()
            .await
            .context("cannot delete the routing rule of the IPv6 stand-ins")?;
    }
    Ok(())
}

fn ours() -> Result<Vec<RuleMessage>> {
    let mut rules = tables::rules(&IpVersion::V6)?.items;
    let protocol = RuleAttribute::Protocol(PROTOCOL);
    rules.retain(|rule| rule.attributes.contains(&protocol));
    Ok(rules)
}
