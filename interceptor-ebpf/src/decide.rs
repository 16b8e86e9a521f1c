//! The decision: istio-iptables' rules as one pure function.

use crate::{
    Address, DNS_PORT, Flow, Inbound, Listener, Outbound, Owner, OwnerIds, Policy, PolicyFlags,
    PortFlags, PrefixFlags, Reason, Transport,
};

/// The decision on a connection, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the connection unchanged.
    Pass(Reason),
    /// Redirect the connection to a listener of the proxy.
    Capture(Listener, Reason),
}

impl Verdict {
    /// Whether a setting exempts the connection from capture. The other reasons to pass are those of
    /// traffic that the rules do not capture at all: strict mode refuses it.
    #[inline(always)]
    #[must_use]
    pub const fn is_exemption(self) -> bool {
        match self {
            Self::Pass(reason) => !matches!(reason, Reason::Ipv6Disabled | Reason::NotTcp),
            Self::Capture(..) => false,
        }
    }
}

/// Lookups in the lists of a policy, which are too long for [`Policy`] itself. Called only if a rule
/// requires them.
pub trait PolicyLookups {
    /// The lists that contain `port`.
    fn port_flags(&self, port: u16) -> PortFlags;
    /// The lists that contain `address`.
    fn prefix_flags(&self, address: Address) -> PrefixFlags;
    /// Whether the list of owner groups contains `gid`.
    fn has_group(&self, gid: u32) -> bool;
}

/// Decides on the connection whose first packet is `flow`.
///
/// The steps have the order of the rules; each step cites its rule. (Chains that only return to
/// their caller are left out: `RETURN` from an `ISTIO_` chain accepts.)
#[inline(always)]
pub fn decide(policy: &Policy, lookups: &impl PolicyLookups, flow: &Flow) -> Verdict {
    match flow {
        Flow::Outbound(flow) => decide_outbound(policy, lookups, flow),
        Flow::Inbound(flow) => decide_inbound(policy, lookups, flow),
    }
}

#[inline(always)]
fn decide_outbound(policy: &Policy, lookups: &impl PolicyLookups, flow: &Outbound) -> Verdict {
    if !is_family_captured(policy, flow.destination) {
        return Verdict::Pass(Reason::Ipv6Disabled);
    }
    // [mangle] OUTPUT -o I -j RETURN, and the same in nat
    if flow.by_excluded_interface {
        return Verdict::Pass(Reason::OutboundInterfaceExcluded);
    }
    let verdict = redirect_outbound(policy, lookups, flow);
    let passes = matches!(verdict, Verdict::Pass(_));
    if passes && policy.flags.contains(PolicyFlags::TPROXY) && is_tproxied_by_self(policy, flow) {
        // The packet passes mangle's PREROUTING on `lo`, whatever the rules of nat.
        if let Verdict::Capture(..) = tproxy(policy, lookups, flow.destination, flow.port) {
            return Verdict::Capture(Listener::Transparent, Reason::ProxyToSelf);
        }
    }
    verdict
}

/// The rules of `nat`'s OUTPUT, in either mode.
#[inline(always)]
fn redirect_outbound(policy: &Policy, lookups: &impl PolicyLookups, flow: &Outbound) -> Verdict {
    use Verdict::{Capture, Pass};

    let port = port_lists(policy, lookups, PolicyFlags::HAS_OUTBOUND_PORTS, flow.port);
    // ISTIO_OUTPUT -p tcp|udp --dport P -j RETURN
    if port.contains(PortFlags::OUTBOUND_EXCLUDED) {
        return Pass(Reason::OutboundPortExcluded);
    }
    // ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
    if flow.via_loopback && flow.source == flow.destination.passthrough() {
        return Pass(Reason::PassthroughSource);
    }
    // All UID rules come before the first GID rule, and only UID rules exempt TCP to port 53.
    let dns = policy.flags.contains(PolicyFlags::DNS);
    if let Some(verdict) = decide_by_owner(policy, flow, &policy.uids, flow.owner.uid, dns) {
        return verdict;
    }
    if let Some(verdict) = decide_by_owner(policy, flow, &policy.gids, flow.owner.gid, false) {
        return verdict;
    }
    if let Some(reason) = excluded_by_group(policy, lookups, flow.owner) {
        return Pass(reason);
    }
    let prefix = lookups.prefix_flags(flow.destination);
    // ISTIO_OUTPUT_DNS -p tcp|udp --dport 53 [-d S] -j REDIRECT --to-ports 15053
    if flow.port == DNS_PORT
        && (policy.flags.contains(PolicyFlags::DNS_ALL) || prefix.contains(PrefixFlags::DNS_SERVER))
    {
        return Capture(Listener::Dns, Reason::DnsQuery);
    }
    // ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
    if policy.is_localhost(flow.destination) {
        return Pass(Reason::ToLocalhost);
    }
    // ISTIO_OUTPUT -d C -j RETURN
    if prefix.contains(PrefixFlags::EXCLUDED) {
        return Pass(Reason::PrefixExcluded);
    }
    // ISTIO_OUTPUT -p tcp --dport P -j ISTIO_REDIRECT
    if flow.transport == Transport::Tcp && port.contains(PortFlags::OUTBOUND_INCLUDED) {
        return Capture(Listener::Outbound, Reason::OutboundPortIncluded);
    }
    // ISTIO_OUTPUT [-d C] -j ISTIO_REDIRECT, which redirects only -p tcp
    match (is_included(policy, prefix), flow.transport) {
        (false, _) => Pass(Reason::PrefixNotIncluded),
        (true, Transport::Udp) => Pass(Reason::NotTcp),
        (true, Transport::Tcp) => Capture(Listener::Outbound, Reason::PrefixIncluded),
    }
}

/// The three rules of each UID or GID, in order, for a socket whose owner has `id`. With `spares_dns`,
/// the first rule has `! --dports 53,15008` instead of `! --dport 15008`.
#[inline(always)]
fn decide_by_owner(
    policy: &Policy,
    flow: &Outbound,
    ids: &OwnerIds,
    id: u32,
    spares_dns: bool,
) -> Option<Verdict> {
    let is_tcp = flow.transport == Transport::Tcp;
    let redirects_to_self = flow.via_loopback
        && is_tcp
        && flow.port != policy.tunnel_port
        && !(spares_dns && flow.port == DNS_PORT)
        && !policy.is_localhost(flow.destination);
    let leaves_to_self = flow.via_loopback
        && !policy.flags.contains(PolicyFlags::LOOPBACK_INCLUDED)
        && (!policy.flags.contains(PolicyFlags::DNS) || (is_tcp && flow.port != DNS_PORT));
    // The third rule of the first owner matches all others: the rules after it are not reached.
    let is_owner = if leaves_to_self {
        ids.get(0) == Some(id)
    } else {
        ids.contains(id)
    };
    match (is_owner, redirects_to_self) {
        // -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner U -j
        // ISTIO_IN_REDIRECT
        (true, true) => Some(Verdict::Capture(Listener::Inbound, Reason::ProxyToSelf)),
        // -m owner --uid-owner U -j RETURN
        (true, false) => Some(Verdict::Pass(Reason::ProxyUidGid)),
        // -o lo [-p tcp ! --dport 53] -m owner ! --uid-owner U -j RETURN
        (false, _) if leaves_to_self && !ids.is_empty() => Some(Verdict::Pass(Reason::AppToSelf)),
        (false, _) => None,
    }
}

/// Why the owner's group excludes the connection from capture, if it does.
#[inline(always)]
fn excluded_by_group(
    policy: &Policy,
    lookups: &impl PolicyLookups,
    owner: Owner,
) -> Option<Reason> {
    let only_listed = policy.flags.contains(PolicyFlags::GROUPS_INCLUDED);
    let listed = policy.flags.contains(PolicyFlags::HAS_GROUPS) && lookups.has_group(owner.gid);
    match (only_listed, listed) {
        // ISTIO_OUTPUT -m owner ! --gid-owner G1 -m owner ! --gid-owner G2 … -j RETURN
        (true, false) => Some(Reason::OwnerGroupNotIncluded),
        // ISTIO_OUTPUT -m owner --gid-owner G -j RETURN
        (false, true) => Some(Reason::OwnerGroupExcluded),
        _ => None,
    }
}

#[inline(always)]
fn is_included(policy: &Policy, prefix: PrefixFlags) -> bool {
    policy.flags.contains(PolicyFlags::OUTBOUND_ALL) || prefix.contains(PrefixFlags::INCLUDED)
}

#[inline(always)]
fn decide_inbound(policy: &Policy, lookups: &impl PolicyLookups, flow: &Inbound) -> Verdict {
    if !is_family_captured(policy, flow.destination) {
        return Verdict::Pass(Reason::Ipv6Disabled);
    }
    if !policy.flags.contains(PolicyFlags::TPROXY) {
        return redirect_inbound(policy, lookups, flow);
    }
    // mangle's PREROUTING comes first; nat's has only the rules of -k in this mode.
    let verdict = tproxy_inbound(policy, lookups, flow);
    match verdict {
        Verdict::Pass(_) if flow.by_rerouted_interface => reroute(policy, lookups, flow),
        _ => verdict,
    }
}

/// The rules of `nat`'s PREROUTING in REDIRECT mode.
#[inline(always)]
fn redirect_inbound(policy: &Policy, lookups: &impl PolicyLookups, flow: &Inbound) -> Verdict {
    if flow.by_rerouted_interface {
        return reroute(policy, lookups, flow);
    }
    // PREROUTING -i I -j RETURN
    if flow.by_excluded_interface {
        return Verdict::Pass(Reason::InboundInterfaceExcluded);
    }
    // ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
    if captures_inbound(policy) && flow.port == policy.tunnel_port {
        return Verdict::Pass(Reason::TunnelPort);
    }
    decide_by_inbound_port(policy, lookups, flow.port)
}

/// `PREROUTING -i I [-d C] -j ISTIO_REDIRECT`, then `PREROUTING -i I -j RETURN`: both are inserted
/// before all other rules.
#[inline(always)]
fn reroute(policy: &Policy, lookups: &impl PolicyLookups, flow: &Inbound) -> Verdict {
    if is_included(policy, lookups.prefix_flags(flow.destination)) {
        Verdict::Capture(Listener::Outbound, Reason::Rerouted)
    } else {
        Verdict::Pass(Reason::ReroutedNotIncluded)
    }
}

/// The rules of `mangle`'s PREROUTING for packets from outside, which have no mark.
#[inline(always)]
fn tproxy_inbound(policy: &Policy, lookups: &impl PolicyLookups, flow: &Inbound) -> Verdict {
    // PREROUTING -i I -j RETURN
    if flow.by_excluded_interface {
        return Verdict::Pass(Reason::InboundInterfaceExcluded);
    }
    tproxy(policy, lookups, flow.destination, flow.port)
}

/// Whether TPROXY's rules apply to a connection of the proxy to its own pod:
/// `OUTPUT ! -d 127.0.0.1/32 -p tcp -o lo -m owner --uid-owner U -j MARK --set-mark 1338`, and
/// `ISTIO_INBOUND -p tcp -i lo -m mark ! --mark 1338 -j RETURN`.
#[inline(always)]
fn is_tproxied_by_self(policy: &Policy, flow: &Outbound) -> bool {
    flow.via_loopback
        && flow.transport == Transport::Tcp
        && !flow.is_marked
        && flow.source != flow.destination.passthrough()
        && policy.is_proxy(flow.owner)
}

/// The rest of `mangle`'s `ISTIO_INBOUND`: the ports, then
/// `ISTIO_TPROXY ! -d 127.0.0.1/32 -p tcp -j TPROXY`. The tunnel's port has no rule here.
#[inline(always)]
fn tproxy(
    policy: &Policy,
    lookups: &impl PolicyLookups,
    destination: Address,
    port: u16,
) -> Verdict {
    if policy.is_localhost(destination) {
        return Verdict::Pass(Reason::ToLocalhost);
    }
    decide_by_inbound_port(policy, lookups, port)
}

#[inline(always)]
fn captures_inbound(policy: &Policy) -> bool {
    policy.flags.contains(PolicyFlags::INBOUND_ALL)
        || policy.flags.contains(PolicyFlags::INBOUND_LISTED)
}

#[inline(always)]
fn decide_by_inbound_port(policy: &Policy, lookups: &impl PolicyLookups, port: u16) -> Verdict {
    use Verdict::{Capture, Pass};

    // PREROUTING -p tcp -j ISTIO_INBOUND
    if !captures_inbound(policy) {
        return Pass(Reason::InboundDisabled);
    }
    let port = port_lists(policy, lookups, PolicyFlags::HAS_INBOUND_PORTS, port);
    if policy.flags.contains(PolicyFlags::INBOUND_ALL) {
        // ISTIO_INBOUND -p tcp --dport P -j RETURN, then -p tcp -j ISTIO_IN_REDIRECT
        if port.contains(PortFlags::INBOUND_EXCLUDED) {
            Pass(Reason::InboundPortExcluded)
        } else {
            Capture(Listener::Inbound, Reason::InboundPortIncluded)
        }
    } else if port.contains(PortFlags::INBOUND_INCLUDED) {
        // ISTIO_INBOUND -p tcp --dport P -j ISTIO_IN_REDIRECT
        Capture(Listener::Inbound, Reason::InboundPortIncluded)
    } else {
        Pass(Reason::InboundPortNotIncluded)
    }
}

/// The lists that contain a port, looked up only if the policy has lists of that direction.
#[inline(always)]
fn port_lists(
    policy: &Policy,
    lookups: &impl PolicyLookups,
    any: PolicyFlags,
    port: u16,
) -> PortFlags {
    if policy.flags.contains(any) {
        lookups.port_flags(port)
    } else {
        PortFlags::NONE
    }
}

#[inline(always)]
fn is_family_captured(policy: &Policy, address: Address) -> bool {
    address.is_v4() || policy.flags.contains(PolicyFlags::IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_setting_is_an_exemption() {
        let passed = Reason::ALL.into_iter().map(Verdict::Pass);
        let refused = passed.filter(|verdict| !verdict.is_exemption());
        assert!(refused.eq([Reason::Ipv6Disabled, Reason::NotTcp].map(Verdict::Pass)));
        for reason in Reason::ALL {
            assert!(!Verdict::Capture(Listener::Outbound, reason).is_exemption());
        }
    }
}
