//! What TPROXY takes in a pod, as istio-iptables leaves it there: packets with the mark are
//! delivered to the pod itself, wherever they go, so that the app's answers to a client reach the
//! proxy that speaks in the client's name.
//!
//! Where iptables moves the mark from the proxy's packets to the app's by conntrack,
//! `net.ipv4.tcp_fwmark_accept` has the app's sockets take it over.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    route::{RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::{addresses::LOOPBACK_INDEX, netlink::errno};
use crate::settings::{Mode, Settings};

/// Marks our rules and routes.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(154);

/// Marks our rules where the sysctl was on before, and is left on: what is to be undone is written
/// where it is undone, and no crash comes between.
const PROTOCOL_SYSCTL_WAS_ON: RouteProtocol = RouteProtocol::Other(155);

const FWMARK_ACCEPT: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";

/// Which packets are delivered to the pod itself, and by which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The mark.
    pub mark: u32,
    /// The routing table.
    pub table: u32,
}

impl Delivery {
    /// What `settings` take, if they say TPROXY.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        (settings.mode == Mode::Tproxy).then_some(Self {
            mark: settings.tproxy_mark,
            table: settings.tproxy_table,
        })
    }
}

/// Has the calling thread's network namespace deliver what is marked, in IPv6 only if `ipv6`.
pub async fn install(netlink: &Handle, delivery: Delivery, ipv6: bool) -> Result<()> {
    let protocol = if ours(netlink).await?.iter().any(is_undoing_the_sysctl) || !is_sysctl_on()? {
        PROTOCOL
    } else {
        PROTOCOL_SYSCTL_WAS_ON
    };
    let versions: &[IpVersion] = if ipv6 {
        &[IpVersion::V4, IpVersion::V6]
    } else {
        &[IpVersion::V4]
    };
    for version in versions {
        netlink
            .route()
            .add(route(delivery.table, version))
            .replace()
            .execute()
            .await
            .with_context(|| format!("cannot add the route of table {}", delivery.table))?;
        add_rule(netlink, delivery, version, protocol).await?;
    }
    set_sysctl("1")
}

/// `ip rule add fwmark MARK lookup TABLE`. The same rule may be there already.
async fn add_rule(
    netlink: &Handle,
    delivery: Delivery,
    version: &IpVersion,
    protocol: RouteProtocol,
) -> Result<()> {
    let request = netlink
        .rule()
        .add()
        .fw_mark(delivery.mark)
        .table_id(delivery.table)
        .action(RuleAction::ToTable);
    let protocol = RuleAttribute::Protocol(protocol);
    let result = match version {
        IpVersion::V4 => {
            let mut request = request.v4();
            request.message_mut().attributes.push(protocol);
            request.execute().await
        }
        IpVersion::V6 => {
            let mut request = request.v6();
            request.message_mut().attributes.push(protocol);
            request.execute().await
        }
    };
    match result {
        Err(error) if errno(&error) == Some(Errno::EEXIST as i32) => Ok(()),
        result => result.with_context(|| {
            let Delivery { mark, table } = delivery;
            format!("cannot add the routing rule fwmark {mark} lookup {table}")
        }),
    }
}

/// Takes away what [`install`] has added to the calling thread's network namespace.
pub async fn remove(netlink: &Handle) -> Result<()> {
    let rules = ours(netlink).await?;
    if rules.is_empty() {
        return Ok(());
    }
    // The rules go last: they tell what is to be undone.
    if rules.iter().any(is_undoing_the_sysctl) {
        set_sysctl("0")?;
    }
    for route in our_routes(netlink).await? {
        netlink
            .route()
            .del(route)
            .execute()
            .await
            .context("cannot remove a route of TPROXY's table")?;
    }
    for rule in rules {
        netlink
            .rule()
            .del(rule)
            .execute()
            .await
            .context("cannot remove a routing rule of TPROXY")?;
    }
    Ok(())
}

fn is_sysctl_on() -> Result<bool> {
    let value = fs::read_to_string(FWMARK_ACCEPT)
        .with_context(|| format!("cannot read {FWMARK_ACCEPT}"))?;
    Ok(value.trim() != "0")
}

fn set_sysctl(value: &str) -> Result<()> {
    fs::write(FWMARK_ACCEPT, value).with_context(|| {
        format!("cannot set {FWMARK_ACCEPT}, which TPROXY takes: is /proc/sys read-only here?")
    })
}

fn is_undoing_the_sysctl(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL))
}

async fn ours(netlink: &Handle) -> Result<Vec<RuleMessage>> {
    let mut ours = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let rules: Vec<_> = netlink
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await
            .context("cannot list the routing rules")?;
        ours.extend(rules.into_iter().filter(|rule| {
            [PROTOCOL, PROTOCOL_SYSCTL_WAS_ON].iter().any(|protocol| {
                rule.attributes
                    .contains(&RuleAttribute::Protocol(*protocol))
            })
        }));
    }
    Ok(ours)
}

async fn our_routes(netlink: &Handle) -> Result<Vec<RouteMessage>> {
    let mut ours = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let question = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes: Vec<_> = netlink
            .route()
            .get(question)
            .execute()
            .try_collect()
            .await
            .context("cannot list the routes")?;
        ours.extend(routes.into_iter().filter(|r| r.header.protocol == PROTOCOL));
    }
    Ok(ours)
}

/// `ip route add local 0.0.0.0/0 dev lo table TABLE`
fn route(table: u32, version: &IpVersion) -> RouteMessage {
    match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(LOOPBACK_INDEX)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .protocol(PROTOCOL)
            .table_id(table)
            .build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
            .output_interface(LOOPBACK_INDEX)
            .kind(RouteType::Local)
            .protocol(PROTOCOL)
            .table_id(table)
            .build(),
    }
}
