//! Routing rules (`ip rule`) and their selectors.

use ipnet::IpNet;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_core::Nla as _;

use super::{route_limits::Cause, tproxy};

/// The destinations that a rule selects.
pub(super) fn destination(rule: &RuleMessage) -> Option<IpNet> {
    let destination = rule
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Destination(destination) => Some(*destination),
            _ => None,
        })?;
    IpNet::new(destination, rule.header.dst_len).ok()
}

/// Why the route of a socket depends on more than the destination, if `rule` makes it so. Our own rules
/// apply only to packets with the proxy's mark.
pub(super) fn selects_more(rule: &RuleMessage) -> Option<Cause> {
    if tproxy::is_ours(rule) {
        return None;
    }
    let mut selectors = Vec::new();
    if rule.header.tos != 0 {
        selectors.push("tos".to_owned());
    }
    selectors.extend(rule.attributes.iter().filter_map(selector));
    let priority = rule
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    (!selectors.is_empty()).then(|| Cause::Rule {
        priority: priority.unwrap_or(0),
        selectors,
    })
}

/// The selector that an attribute sets, by its name in `ip rule`. An unknown attribute, of a newer
/// kernel, counts as a selector.
fn selector(attribute: &RuleAttribute) -> Option<String> {
    let name = match attribute {
        RuleAttribute::Source(_) => "from",
        RuleAttribute::FwMark(_) | RuleAttribute::FwMask(_) => "fwmark",
        RuleAttribute::TunId(_) => "tun_id",
        RuleAttribute::Oifname(_) => "oif",
        RuleAttribute::L3MDev(true) => "l3mdev",
        RuleAttribute::UidRange(_) => "uidrange",
        RuleAttribute::IpProtocol(_) => "ipproto",
        RuleAttribute::SourcePortRange(_) => "sport",
        RuleAttribute::DestinationPortRange(_) => "dport",
        // Actions, not selectors; and `iif`: for rules, the packets of every socket enter through `lo`
        // (`ip_route_output_key_hash_rcu`, `ip6_route_output_flags`).
        RuleAttribute::L3MDev(false)
        | RuleAttribute::Destination(_)
        | RuleAttribute::Iifname(_)
        | RuleAttribute::Goto(_)
        | RuleAttribute::Priority(_)
        | RuleAttribute::Realm(_)
        | RuleAttribute::SuppressIfGroup(_)
        | RuleAttribute::SuppressPrefixLen(_)
        | RuleAttribute::Table(_)
        | RuleAttribute::Protocol(_) => return None,
        RuleAttribute::Other(other) => return Some(format!("attribute {}", other.kind())),
        _ => "an attribute that this build does not know",
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_route::rule::RuleUidRange;

    use super::*;

    fn selectors(attributes: Vec<RuleAttribute>) -> Vec<String> {
        let mut rule = RuleMessage::default();
        rule.attributes = attributes;
        match selects_more(&rule) {
            Some(Cause::Rule { selectors, .. }) => selectors,
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_destination_is_no_other_selector() {
        let to = RuleAttribute::Destination(IpAddr::from([10, 5, 0, 0]));
        let by_lo = RuleAttribute::Iifname("lo".to_owned());
        let table = RuleAttribute::Table(100);
        assert!(selectors(vec![to, by_lo, table, RuleAttribute::Priority(7)]).is_empty());
    }

    #[test]
    fn selectors_of_sockets_are_named() {
        let from = RuleAttribute::Source(IpAddr::from([10, 6, 0, 3]));
        assert_eq!(selectors(vec![from]), ["from"]);
        let users = RuleAttribute::UidRange(RuleUidRange { start: 0, end: 9 });
        let mark = RuleAttribute::FwMark(1);
        assert_eq!(selectors(vec![users, mark]), ["uidrange", "fwmark"]);
    }
}
