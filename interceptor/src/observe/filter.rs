//! Which flows an observer wants.
//!
//! Conditions of one kind are alternatives; those of different kinds must all hold. A flow that meets
//! a condition after `--not` is left out.

use std::net::IpAddr;

use ipnet::IpNet;

use super::flow::Flow;
use crate::outcome::{Direction, Verdict};

/// A condition of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The pod's namespace and name.
    Pod(String, String),
    /// The pod's namespace.
    Namespace(String),
    /// The cookie of the pod's network namespace.
    Netns(u64),
    Verdict(Verdict),
    /// The label of the rule that decided.
    Reason(String),
    /// Contains the address of either end.
    Ip(IpNet),
    /// The port of either end.
    Port(u16),
    /// The owner of the socket.
    Uid(u32),
    /// The name of the process.
    Command(String),
    Direction(Direction),
    V4,
    V6,
}

/// Conditions, and those that exclude a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) wanted: Vec<Condition>,
    pub(crate) unwanted: Vec<Condition>,
}

impl Filter {
    /// Whether the observer wants this flow.
    pub(crate) fn matches(&self, flow: &Flow) -> bool {
        let is_met = |condition: &Condition| condition.is_met_by(flow);
        let is_alternative_met = |condition: &Condition| {
            let kind = condition.kind();
            let mut alternatives = self.wanted.iter().filter(|other| other.kind() == kind);
            alternatives.any(is_met)
        };
        self.wanted.iter().all(is_alternative_met) && !self.unwanted.iter().any(is_met)
    }
}

/// Conditions of the same kind are alternatives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pod,
    Verdict,
    Reason,
    Ip,
    Port,
    Uid,
    Command,
    Direction,
    Family,
}

impl Condition {
    const fn kind(&self) -> Kind {
        match self {
            Self::Pod(..) | Self::Namespace(_) | Self::Netns(_) => Kind::Pod,
            Self::Verdict(_) => Kind::Verdict,
            Self::Reason(_) => Kind::Reason,
            Self::Ip(_) => Kind::Ip,
            Self::Port(_) => Kind::Port,
            Self::Uid(_) => Kind::Uid,
            Self::Command(_) => Kind::Command,
            Self::Direction(_) => Kind::Direction,
            Self::V4 | Self::V6 => Kind::Family,
        }
    }

    fn is_met_by(&self, flow: &Flow) -> bool {
        let (pod, process) = (&flow.pod, flow.process.as_ref());
        let ends = || [&flow.source, &flow.destination].into_iter();
        let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
        match self {
            Self::Pod(namespace, name) => is(&pod.namespace, namespace) && is(&pod.name, name),
            Self::Namespace(namespace) => is(&pod.namespace, namespace),
            Self::Netns(cookie) => pod.netns_cookie == *cookie,
            Self::Verdict(verdict) => flow.verdict == *verdict,
            Self::Reason(reason) => flow.reason == *reason,
            Self::Ip(network) => ends().any(|end| network.contains(&end.ip)),
            Self::Port(port) => ends().any(|end| end.port == Some(*port)),
            Self::Uid(uid) => process.and_then(|process| process.uid) == Some(*uid),
            Self::Command(command) => process.is_some_and(|process| process.command == *command),
            Self::Direction(direction) => flow.direction == *direction,
            Self::V4 => flow.destination.ip.is_ipv4(),
            Self::V6 => flow.destination.ip.is_ipv6(),
        }
    }
}

/// An address, or a prefix of addresses.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "expected an IP address or a prefix such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::flow::tests::flow;

    fn is_wanted(wanted: &[Condition], unwanted: &[Condition]) -> bool {
        let filter = Filter {
            wanted: wanted.to_vec(),
            unwanted: unwanted.to_vec(),
        };
        filter.matches(&flow())
    }

    #[test]
    fn without_conditions_every_flow_is_wanted() {
        assert!(is_wanted(&[], &[]));
    }

    #[test]
    fn each_kind_of_condition_is_met_or_not() {
        let pod = |name: &str| Condition::Pod("shop".to_owned(), name.to_owned());
        let ip = |text| Condition::Ip(network(text).unwrap());
        let command = |name: &str| Condition::Command(name.to_owned());
        let reason = |name: &str| Condition::Reason(name.to_owned());
        for (met, unmet) in [
            (pod("web-0"), pod("web-1")),
            (
                Condition::Namespace("shop".to_owned()),
                Condition::Namespace("web-0".to_owned()),
            ),
            (Condition::Netns(7), Condition::Netns(8)),
            (
                Condition::Verdict(Verdict::Captured),
                Condition::Verdict(Verdict::Passed),
            ),
            (reason("prefix_included"), reason("prefix_excluded")),
            (ip("10.1.0.2"), ip("10.1.0.3")),
            (ip("10.2.0.0/16"), ip("fd00::/8")),
            (Condition::Port(80), Condition::Port(15001)),
            (Condition::Uid(1000), Condition::Uid(1337)),
            (command("curl"), command("cur")),
            (
                Condition::Direction(Direction::Outbound),
                Condition::Direction(Direction::Inbound),
            ),
            (Condition::V4, Condition::V6),
        ] {
            let (met, unmet) = (&[met], &[unmet]);
            assert!(is_wanted(met, &[]) && is_wanted(&[], unmet), "{met:?}");
            assert!(!is_wanted(unmet, &[]) && !is_wanted(&[], met), "{unmet:?}");
        }
    }

    #[test]
    fn conditions_of_one_kind_are_alternatives() {
        let (passed, captured) = (
            Condition::Verdict(Verdict::Passed),
            Condition::Verdict(Verdict::Captured),
        );
        let both = [passed, captured, Condition::Port(80)];
        assert!(is_wanted(&both, &[]));
        assert!(!is_wanted(&both, &[Condition::Uid(1000)]));
        assert!(!is_wanted(&[&both[..], &[Condition::V6]].concat(), &[]));
    }
}
