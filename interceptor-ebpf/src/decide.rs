//! The decision: istio-iptables' REDIRECT rules as one pure function.

use crate::{
    Address, Flow, Inbound, Listener, MAX_OWNERS, Outbound, Owner, OwnerIds, Policy, PolicyFlags,
    PortFlags, PrefixFlags, TUNNEL_PORT, Transport,
};

/// What becomes of a connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as if we were not there.
    Pass(Reason),
    /// It is taken to one of the proxy's listeners.
    Capture(Listener, Reason),
}

/// Why a verdict is what it is: the rule that was the first to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The pod's IPv6 is not captured.
    Ipv6Off,
    /// `-o` excludes the port.
    OutboundPortExcluded,
    /// It comes from `127.0.0.6` or `::6` over `lo`: the proxy's way to the app.
    PassthroughSource,
    /// The proxy calls the pod itself by another address than localhost.
    ProxyToSelf,
    /// An app calls the pod itself.
    AppToSelf,
    /// The proxy opened the socket.
    ProxyOwned,
    /// It goes to `127.0.0.1` or `::1`.
    ToLocalhost,
    /// `-x` excludes the destination.
    PrefixExcluded,
    /// `-i` includes the destination.
    PrefixIncluded,
    /// `-i` does not include the destination.
    PrefixNotIncluded,
    /// Only TCP is redirected.
    NotTcp,
    /// `-b` is empty.
    InboundOff,
    /// It comes to the mesh's own tunnel.
    ToTunnel,
    /// `-d` excludes the port.
    InboundPortExcluded,
    /// `-b` includes the port.
    InboundPortIncluded,
    /// `-b` does not list the port.
    InboundPortNotIncluded,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Ipv6Off,
        Self::OutboundPortExcluded,
        Self::PassthroughSource,
        Self::ProxyToSelf,
        Self::AppToSelf,
        Self::ProxyOwned,
        Self::ToLocalhost,
        Self::PrefixExcluded,
        Self::PrefixIncluded,
        Self::PrefixNotIncluded,
        Self::NotTcp,
        Self::InboundOff,
        Self::ToTunnel,
        Self::InboundPortExcluded,
        Self::InboundPortIncluded,
        Self::InboundPortNotIncluded,
    ];

    /// The reason in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ipv6Off => "the pod's IPv6 is not captured",
            Self::OutboundPortExcluded => "the port is excluded (-o)",
            Self::PassthroughSource => "it comes from the proxy's passthrough address",
            Self::ProxyToSelf => "the proxy calls its own pod",
            Self::AppToSelf => "the pod calls itself",
            Self::ProxyOwned => "the proxy opened the socket",
            Self::ToLocalhost => "it goes to localhost",
            Self::PrefixExcluded => "the destination is excluded (-x)",
            Self::PrefixIncluded => "the destination is included (-i)",
            Self::PrefixNotIncluded => "the destination is not included (-i)",
            Self::NotTcp => "it is not TCP",
            Self::InboundOff => "inbound capture is off (-b '')",
            Self::ToTunnel => "it comes to the mesh's tunnel",
            Self::InboundPortExcluded => "the port is excluded (-d)",
            Self::InboundPortIncluded => "the port is included (-b)",
            Self::InboundPortNotIncluded => "the port is not included (-b)",
        }
    }
}

/// The lists of a policy, which are too long to be part of it. They are asked only when a rule is
/// reached that needs them.
pub trait Lists {
    /// The lists that a port is in.
    fn port(&self, port: u16) -> PortFlags;
    /// The lists that an address is in.
    fn prefix(&self, address: Address) -> PrefixFlags;
}

/// What becomes of the connection whose first packet is `flow`.
///
/// The order is that of the rules; each step names the one it mirrors. (Chains that only go back
/// to their caller are left out: `RETURN` from an `ISTIO_` chain accepts.)
#[inline(always)]
pub fn decide(policy: &Policy, lists: &impl Lists, flow: &Flow) -> Verdict {
    match flow {
        Flow::Outbound(flow) => decide_outbound(policy, lists, flow),
        Flow::Inbound(flow) => decide_inbound(policy, lists, flow),
    }
}

#[inline(always)]
fn decide_outbound(policy: &Policy, lists: &impl Lists, flow: &Outbound) -> Verdict {
    use Verdict::{Capture, Pass};

    if !is_family_captured(policy, flow.destination) {
        return Pass(Reason::Ipv6Off);
    }
    // ISTIO_OUTPUT -p tcp|udp --dport P -j RETURN
    if lists.port(flow.port).contains(PortFlags::OUTBOUND_EXCLUDED) {
        return Pass(Reason::OutboundPortExcluded);
    }
    // ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
    if flow.via_loopback && flow.source == flow.source.passthrough() {
        return Pass(Reason::PassthroughSource);
    }
    // Every UID rule before the first GID rule.
    if let Some(verdict) = decide_by_owner(policy, flow, &policy.uids, |owner| owner.uid) {
        return verdict;
    }
    if let Some(verdict) = decide_by_owner(policy, flow, &policy.gids, |owner| owner.gid) {
        return verdict;
    }
    // ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
    if flow.destination == flow.destination.localhost() {
        return Pass(Reason::ToLocalhost);
    }
    let prefix = lists.prefix(flow.destination);
    // ISTIO_OUTPUT -d C -j RETURN
    if prefix.contains(PrefixFlags::EXCLUDED) {
        return Pass(Reason::PrefixExcluded);
    }
    // ISTIO_OUTPUT [-d C] -j ISTIO_REDIRECT
    let included =
        policy.flags.contains(PolicyFlags::OUTBOUND_ALL) || prefix.contains(PrefixFlags::INCLUDED);
    match (included, flow.transport) {
        (false, _) => Pass(Reason::PrefixNotIncluded),
        (true, Transport::Udp) => Pass(Reason::NotTcp),
        (true, Transport::Tcp) => Capture(Listener::Outbound, Reason::PrefixIncluded),
    }
}

/// The three rules of each UID or GID, in turn.
#[inline(always)]
fn decide_by_owner(
    policy: &Policy,
    flow: &Outbound,
    ids: &OwnerIds,
    id_of: impl Fn(Owner) -> u32,
) -> Option<Verdict> {
    for index in 0..MAX_OWNERS {
        let Some(id) = ids.get(index) else { break };
        let owned = id_of(flow.owner) == id;
        // -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner U -j ISTIO_IN_REDIRECT
        if owned
            && flow.via_loopback
            && flow.transport == Transport::Tcp
            && flow.port != TUNNEL_PORT
            && flow.destination != flow.destination.localhost()
        {
            return Some(Verdict::Capture(Listener::Inbound, Reason::ProxyToSelf));
        }
        // -o lo -m owner ! --uid-owner U -j RETURN
        if !owned && flow.via_loopback && !policy.flags.contains(PolicyFlags::LOOPBACK_INCLUDED) {
            return Some(Verdict::Pass(Reason::AppToSelf));
        }
        // -m owner --uid-owner U -j RETURN
        if owned {
            return Some(Verdict::Pass(Reason::ProxyOwned));
        }
    }
    None
}

#[inline(always)]
fn decide_inbound(policy: &Policy, lists: &impl Lists, flow: &Inbound) -> Verdict {
    use Verdict::{Capture, Pass};

    if !is_family_captured(policy, flow.destination) {
        return Pass(Reason::Ipv6Off);
    }
    let all = policy.flags.contains(PolicyFlags::INBOUND_ALL);
    // PREROUTING -p tcp -j ISTIO_INBOUND
    if !all && !policy.flags.contains(PolicyFlags::INBOUND_LISTED) {
        return Pass(Reason::InboundOff);
    }
    // ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
    if flow.port == TUNNEL_PORT {
        return Pass(Reason::ToTunnel);
    }
    let port = lists.port(flow.port);
    if all {
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

#[inline(always)]
fn is_family_captured(policy: &Policy, address: Address) -> bool {
    address.is_v4() || policy.flags.contains(PolicyFlags::IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_number() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
