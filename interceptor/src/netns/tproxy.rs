//! What TPROXY requires in a pod, as with istio-iptables: packets with the mark are delivered
//! locally, whatever their destination, so that the app's responses to a client reach the proxy, whose
//! socket has the client's address.
//!
//! Where iptables moves the mark from the proxy's packets to the app's by conntrack, sysctls have
//! the app's side inherit it.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{Address, StandInRange};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::{
    addresses::{self, LOOPBACK_INDEX},
    netlink::errno,
    tables, tcp_sockets,
};
use crate::{
    host,
    settings::{Mode, Settings, ports::PortSelection},
};

/// Marks our routes. Our rules are marked with this number plus the [`SysctlSet`] that must be reset
/// when they are removed: so a crash cannot lose which sysctls to reset.
const PROTOCOL: u8 = 154;

/// With these, replies get the mark of the packet that they reply to: those of accepted sockets, and
/// those that the kernel sends without a socket.
const SYSCTLS: [&str; 3] = [
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
];

/// Which packets are delivered to the pod itself, and by which routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    mark: u32,
    table: u32,
    ipv6: bool,
}

impl Delivery {
    /// The delivery that `settings` require; none unless they capture inbound connections by TPROXY.
    #[must_use]
    pub(crate) fn of(settings: &Settings, ipv6: bool) -> Option<Self> {
        let is_on = settings.mode == Mode::Tproxy && settings.inbound_ports != PortSelection::None;
        is_on.then_some(Self {
            mark: settings.tproxy_mark,
            table: settings.tproxy_table,
            ipv6,
        })
    }

    const fn has(&self, family: AddressFamily) -> bool {
        matches!(family, AddressFamily::Inet) || self.ipv6
    }

    fn needs_rule(&self, rule: &RuleMessage) -> bool {
        let mark = RuleAttribute::FwMark(self.mark);
        self.has(rule.header.family)
            && rule.attributes.contains(&mark)
            && (rule.attributes.contains(&RuleAttribute::Table(self.table))
                || u32::from(rule.header.table) == self.table)
    }

    fn needs_route(&self, route: &RouteMessage) -> bool {
        self.has(route.header.address_family)
            && (route
                .attributes
                .contains(&RouteAttribute::Table(self.table))
                || u32::from(route.header.table) == self.table)
    }
}

/// Makes the calling thread's network namespace deliver marked packets locally.
pub(crate) async fn install(netlink: &Handle, delivery: Delivery) -> Result<()> {
    let existing = our_rules()?;
    let set = match existing.first().and_then(SysctlSet::of_rule) {
        Some(set) => set,
        None => SysctlSet::read_disabled()?,
    };
    let both = [
        (AddressFamily::Inet, IpVersion::V4),
        (AddressFamily::Inet6, IpVersion::V6),
    ];
    for (family, version) in both.iter().filter(|(family, _)| delivery.has(*family)) {
        add_route(netlink, delivery.table, version).await?;
        // The kernel would accept a duplicate.
        let exists = existing
            .iter()
            .any(|rule| rule.header.family == *family && delivery.needs_rule(rule));
        if !exists {
            add_rule(netlink, delivery, version, set).await?;
        }
    }
    set.write("1")
}

/// The result of removing rules and routes that are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    /// None existed.
    Nothing,
    /// Deleted.
    Removed,
    /// Kept, because open connections use them.
    Kept,
}

/// Deletes what [`install`] has added to the calling thread's network namespace, except what `needed`
/// requires. Keeps everything if connections would break.
pub(crate) async fn retire(netlink: &Handle, needed: Option<Delivery>) -> Result<Retired> {
    let mut rules = our_rules()?;
    rules.retain(|rule| needed.is_none_or(|needed| !needed.needs_rule(rule)));
    let mut routes = tables::routes_of(PROTOCOL.into())?;
    routes.retain(|route| needed.is_none_or(|needed| !needed.needs_route(route)));
    if rules.is_empty() && routes.is_empty() {
        return Ok(Retired::Nothing);
    }
    if has_transparent_connections(netlink).await? {
        return Ok(Retired::Kept);
    }
    if needed.is_none()
        && let Some(set) = rules.first().and_then(SysctlSet::of_rule)
    {
        set.write("0")?;
    }
    for route in routes {
        let request = netlink.route().del(route);
        request
            .execute()
            .await
            .context("cannot delete a route of TPROXY's table")?;
    }
    // The rules are deleted last: they record which sysctls to reset.
    for rule in rules {
        let request = netlink.rule().del(rule);
        request
            .execute()
            .await
            .context("cannot delete a routing rule of TPROXY")?;
    }
    Ok(Retired::Removed)
}

/// Whether the proxy has a connection to its app with a client's address.
async fn has_transparent_connections(netlink: &Handle) -> Result<bool> {
    let own = addresses::list(netlink).await?;
    let is_own = |end: IpAddr| {
        end.is_loopback()
            || StandInRange::contains(Address::from(end))
            || own.iter().any(|address| address.net.addr() == end)
    };
    let open = tcp_sockets::open()?;
    Ok(open.iter().any(|connection| !is_own(connection.local)))
}

/// Some of [`SYSCTLS`], a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SysctlSet(u8);

impl SysctlSet {
    const ALL: Self = Self((1 << SYSCTLS.len()) - 1);

    /// Those that are disabled.
    fn read_disabled() -> Result<Self> {
        let mut set = 0;
        for (bit, name) in SYSCTLS.iter().enumerate() {
            set |= u8::from(read_sysctl(name)?.is_some_and(|value| value == "0")) << bit;
        }
        Ok(Self(set))
    }

    /// Those to reset when this rule is removed; `None` if it is not our rule.
    fn of_rule(rule: &RuleMessage) -> Option<Self> {
        rule.attributes.iter().find_map(|attribute| {
            let RuleAttribute::Protocol(protocol) = attribute else {
                return None;
            };
            let set = u8::from(*protocol).checked_sub(PROTOCOL)?;
            (set <= Self::ALL.0).then_some(Self(set))
        })
    }

    /// The mark of our rules that record these.
    fn protocol(self) -> RouteProtocol {
        RouteProtocol::from(PROTOCOL + self.0)
    }

    fn write(self, value: &str) -> Result<()> {
        let names = SYSCTLS.iter().enumerate();
        for (_, name) in names.filter(|(bit, _)| self.0 & (1 << bit) != 0) {
            // Writes only what changes: if /proc/sys is read-only, no sysctl was set that must be reset.
            if read_sysctl(name)?.is_some_and(|now| now != value) {
                write_sysctl(name, value)?;
            }
        }
        Ok(())
    }
}

/// Sets a sysctl of the calling thread's network namespace. In a container /proc/sys is read-only; then
/// uses the host's, which has the same network namespace's values.
fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = sysctl_path(name);
    let result = match fs::write(&path, value) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            let below_root = path.strip_prefix("/").unwrap_or(&path);
            fs::write(host::root()?.join(below_root), value)
        }
        result => result,
    };
    result.with_context(|| {
        let path = path.display();
        format!(
            "cannot write {path}, which TPROXY requires: /proc/sys may be read-only both here and \
             on the host"
        )
    })
}

/// The value of a sysctl, if it exists: IPv6's do not on a kernel without IPv6.
fn read_sysctl(name: &str) -> Result<Option<String>> {
    let path = sysctl_path(name);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        value => {
            let value = value.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Some(value.trim().to_owned()))
        }
    }
}

fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// `ip rule add fwmark MARK lookup TABLE`. An equal rule of another program is kept.
async fn add_rule(
    netlink: &Handle,
    delivery: Delivery,
    version: &IpVersion,
    set: SysctlSet,
) -> Result<()> {
    let mut request = netlink
        .rule()
        .add()
        .fw_mark(delivery.mark)
        .table_id(delivery.table)
        .action(RuleAction::ToTable);
    let protocol = RuleAttribute::Protocol(set.protocol());
    request.message_mut().attributes.push(protocol);
    let result = match version {
        IpVersion::V4 => request.v4().execute().await,
        IpVersion::V6 => request.v6().execute().await,
    };
    result.with_context(|| {
        let Delivery { mark, table, .. } = delivery;
        format!("cannot add the routing rule fwmark {mark} lookup {table}")
    })
}

/// `ip route add local default dev lo table TABLE`. An equal route of another program suffices.
async fn add_route(netlink: &Handle, table: u32, version: &IpVersion) -> Result<()> {
    match netlink.route().add(route(table, version)).execute().await {
        Err(error) if errno(&error) == Some(Errno::EEXIST as i32) => Ok(()),
        result => result.with_context(|| format!("cannot add the route of table {table}")),
    }
}

/// Whether [`install`] has added a routing rule.
pub(super) fn is_ours(rule: &RuleMessage) -> bool {
    SysctlSet::of_rule(rule).is_some()
}

/// The kernel inserts rules without a priority, such as ours, right after the first rule, so they are
/// among the listed ones.
fn our_rules() -> Result<Vec<RuleMessage>> {
    let mut rules = tables::rules(&IpVersion::V4)?.items;
    rules.extend(tables::rules(&IpVersion::V6)?.items);
    rules.retain(is_ours);
    Ok(rules)
}

/// `local default dev lo table TABLE`
fn route(table: u32, version: &IpVersion) -> RouteMessage {
    match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(LOOPBACK_INDEX)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .protocol(PROTOCOL.into())
            .table_id(table)
            .build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
            .output_interface(LOOPBACK_INDEX)
            .kind(RouteType::Local)
            .protocol(PROTOCOL.into())
            .table_id(table)
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_records_which_sysctls_to_reset() {
        for bits in 0..=SysctlSet::ALL.0 {
            let set = SysctlSet(bits);
            let mut rule = RuleMessage::default();
            let protocol = RuleAttribute::Protocol(set.protocol());
            rule.attributes.push(protocol);
            assert_eq!(SysctlSet::of_rule(&rule), Some(set));
        }
    }

    #[test]
    fn the_rules_of_others_are_not_ours() {
        let mut rule = RuleMessage::default();
        assert_eq!(SysctlSet::of_rule(&rule), None);
        for protocol in [RouteProtocol::Boot, RouteProtocol::Bgp] {
            rule.attributes = vec![RuleAttribute::Protocol(protocol)];
            assert_eq!(SysctlSet::of_rule(&rule), None);
        }
    }
}
