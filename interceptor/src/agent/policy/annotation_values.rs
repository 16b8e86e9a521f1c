//! The annotations in which a pod says what is captured, as istio-cni reads them
//! (`cni/pkg/plugin/sidecar_redirect.go`). What they take differs from what the flags take that they
//! stand for: a message offers only what the annotation takes.

use std::borrow::Cow;

use crate::settings::{BLANKS, ports, prefixes};

/// An annotation, the flag that it stands for, and what istio-cni takes in its absence.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Annotation {
    pub(in crate::agent) name: &'static str,
    pub(in crate::agent) flag: &'static str,
    pub(in crate::agent) default: &'static str,
    values: Values,
}

/// What an annotation takes.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// CIDRs.
    Prefixes,
    /// CIDRs, or `*`.
    PrefixesOrAll,
    /// Ports.
    Ports,
    /// Ports, or `*`.
    PortsOrAll,
    /// Names of interfaces.
    Interfaces,
}

const fn annotation(
    name: &'static str,
    flag: &'static str,
    default: &'static str,
    values: Values,
) -> Annotation {
    Annotation {
        name,
        flag,
        default,
        values,
    }
}

/// The annotations in which a pod says what is captured.
pub(in crate::agent) const ANNOTATIONS: [Annotation; 9] = [
    annotation(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "istio-service-cidr",
        "*",
        Values::PrefixesOrAll,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "istio-service-exclude-cidr",
        "",
        Values::Prefixes,
    ),
    annotation(
        "traffic.sidecar.istio.io/includeInboundPorts",
        "istio-inbound-ports",
        "*",
        Values::PortsOrAll,
    ),
    annotation(
        EXCLUDE_INBOUND_PORTS,
        "istio-local-exclude-ports",
        "15020",
        Values::Ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/includeOutboundPorts",
        "istio-outbound-ports",
        "",
        Values::Ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "istio-local-outbound-ports-exclude",
        "15020",
        Values::Ports,
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeInterfaces",
        "istio-exclude-interfaces",
        "",
        Values::Interfaces,
    ),
    // The name before the next one's.
    annotation(
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        "kube-virt-interfaces",
        "",
        Values::Interfaces,
    ),
    annotation(
        "istio.io/reroute-virtual-interfaces",
        "kube-virt-interfaces",
        "",
        Values::Interfaces,
    ),
];

const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// The proxy's own ports, where nothing inbound is captured whatever the annotation says.
const PROXY_PORTS: [&str; 3] = ["15020", "15021", "15090"];

impl Values {
    /// The wrong item of `list` and what is allowed, if it is not such a list.
    fn check(self, list: &str) -> Result<(), String> {
        let takes_all = matches!(self, Self::PrefixesOrAll | Self::PortsOrAll);
        if list.is_empty() || takes_all && list == "*" {
            return Ok(());
        }
        let Some(wrong) = list.split(',').find(|item| !self.takes(item)) else {
            return Ok(());
        };
        let (what, allowed) = self.words();
        let all = if takes_all { "'*', or " } else { "" };
        Err(format!("{wrong:?} is not {what}: give {all}{allowed}"))
    }

    fn takes(self, item: &str) -> bool {
        match self {
            Self::Prefixes | Self::PrefixesOrAll => prefixes::parse_prefix(item).is_some(),
            Self::Ports | Self::PortsOrAll => ports::is_port(item.trim_matches(BLANKS)),
            Self::Interfaces => is_interface(item.trim_matches(BLANKS)),
        }
    }

    /// What an item is called, and what is allowed.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Prefixes | Self::PrefixesOrAll => (
                "a CIDR",
                "CIDRs such as 10.0.0.0/16 or fd00::/8, without leading zeros, separated by commas \
                 without spaces",
            ),
            Self::Ports | Self::PortsOrAll => (
                "a port",
                "port numbers from 0 to 65535, without leading zeros, separated by commas; \
                 annotations do not accept ranges",
            ),
            Self::Interfaces => (
                "an interface name",
                "interface names, separated by commas: a letter, then letters, digits, '_', \
                 '.' or '-', up to 15 in all",
            ),
        }
    }
}

/// istio-cni's pattern of a name: nothing that means more to a rule than itself, such as `eth+`.
fn is_interface(name: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 15
        && name.chars().all(allowed)
}

impl Annotation {
    /// The flag with the annotation's value, once it was checked.
    pub(in crate::agent) fn argument(&self, value: &str) -> Result<String, String> {
        let checked = self.values.check(value);
        checked.map_err(|problem| format!("annotation {} {value:?}: {problem}", self.name))?;
        Ok(format!("--{}={}", self.flag, self.complete(value)))
    }

    /// Both of what the annotation says and of what istio-cni adds to it, each port once.
    fn complete<'a>(&self, value: &'a str) -> Cow<'a, str> {
        if self.name != EXCLUDE_INBOUND_PORTS {
            return value.into();
        }
        let mut ports: Vec<&str> = Vec::new();
        for port in value.split(',').chain(PROXY_PORTS) {
            let port = port.trim_matches(BLANKS);
            if !port.is_empty() && !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports.join(",").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(name: &str, value: &str) -> String {
        let annotation = ANNOTATIONS
            .iter()
            .find(|annotation| annotation.name.ends_with(name));
        let result = annotation.expect("an annotation").argument(value);
        result.expect_err(value)
    }

    #[test]
    fn what_istio_cni_refuses_of_what_the_flags_take_is_refused() {
        let cases = [
            (
                "includeOutboundIPRanges",
                "10.0.0.0/8, 11.0.0.0/8",
                "without spaces",
            ),
            (
                "includeOutboundIPRanges",
                "10.0.0.0/8,",
                "separated by commas",
            ),
            ("excludeOutboundIPRanges", "*", "give CIDRs"),
            ("includeInboundPorts", "80:90", "do not accept ranges"),
            ("excludeInboundPorts", "1:65535", "do not accept ranges"),
            ("includeOutboundPorts", ":9", "do not accept ranges"),
            ("excludeOutboundPorts", "1:", "do not accept ranges"),
            ("excludeOutboundPorts", "80,,443", "\"\" is not a port"),
            ("excludeInboundPorts", "80,", "\"\" is not a port"),
            ("excludeInboundPorts", "08080", "without leading zeros"),
            ("includeInboundPorts", "+80", "65535"),
            ("excludeInterfaces", "eth+", "letter"),
            ("excludeInterfaces", "eth0 -j ACCEPT", "letter"),
            ("excludeInterfaces", "a-name-that-is-too-long", "15"),
            ("kubevirtInterfaces", "0eth", "letter"),
            ("reroute-virtual-interfaces", "eth0,,eth1", "letter"),
        ];
        for (name, value, allowed) in cases {
            let problem = refused(name, value);
            let words = [name, value, allowed];
            assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
        }
    }

    #[test]
    fn blanks_are_taken_where_istio_cni_takes_them() {
        let taken = |name: &str, value| {
            let mut found = ANNOTATIONS.iter();
            let annotation = found.find(|annotation| annotation.name.ends_with(name));
            annotation.expect("an annotation").argument(value).is_ok()
        };
        assert!(taken("includeInboundPorts", "80, 443\t"));
        assert!(taken("excludeInterfaces", " net1, net2 "));
        assert!(taken("includeOutboundIPRanges", ""));
        assert!(!taken("includeInboundPorts", " "));
        assert!(!taken("includeOutboundIPRanges", " 10.0.0.0/8"));
    }
}
