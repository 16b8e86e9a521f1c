//! The annotations that configure a pod's capture, as istio-cni reads them
//! (`cni/pkg/plugin/sidecar_redirect.go`). They accept other values than the corresponding flags: an
//! error lists only what the annotation accepts.

use std::borrow::Cow;

use crate::settings::{BLANKS, ports, prefixes, strict};

/// An annotation, the corresponding flag, and istio-cni's default.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Annotation {
    pub(in crate::agent) name: &'static str,
    pub(in crate::agent) flag: &'static str,
    pub(in crate::agent) default: &'static str,
    values: Values,
}

/// The values that an annotation accepts.
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

/// The annotations that configure a pod's capture.
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
    // The old name of the next one.
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

/// Checks the value of an annotation in which a pod says what is captured. The problem names what is
/// allowed. Other annotations are accepted.
pub fn check_annotation(name: &str, value: &str) -> Result<(), String> {
    if name == STRICT {
        return strict::parse(value).map(drop);
    }
    let annotation = ANNOTATIONS.iter().find(|known| known.name == name);
    annotation.map_or(Ok(()), |annotation| annotation.values.check(value))
}

/// Sets strict mode, which istio-cni does not have.
pub(super) const STRICT: &str = "interceptor.dev/strict";

const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// The proxy's own ports, which are always excluded from inbound capture.
const PROXY_PORTS: [&str; 3] = ["15020", "15021", "15090"];

impl Values {
    /// Fails with the invalid item of `list` and what is allowed.
    fn check(self, list: &str) -> Result<(), String> {
        let accepts_all = matches!(self, Self::PrefixesOrAll | Self::PortsOrAll);
        if list.is_empty() || accepts_all && list == "*" {
            return Ok(());
        }
        let Some(wrong) = list.split(',').find(|item| !self.accepts(item)) else {
            return Ok(());
        };
        let (what, allowed) = self.words();
        let all = if accepts_all { "'*', or " } else { "" };
        Err(format!("{wrong:?} is not {what}: give {all}{allowed}"))
    }

    fn accepts(self, item: &str) -> bool {
        match self {
            Self::Prefixes | Self::PrefixesOrAll => prefixes::parse_prefix(item).is_some(),
            Self::Ports | Self::PortsOrAll => ports::is_port(item.trim_matches(BLANKS)),
            Self::Interfaces => is_interface(item.trim_matches(BLANKS)),
        }
    }

    /// The name of an item, and what is allowed.
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

/// istio-cni's pattern for an interface name, which excludes iptables patterns such as `eth+`.
fn is_interface(name: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 15
        && name.chars().all(allowed)
}

impl Annotation {
    /// Checks the value, and returns the flag with it.
    pub(in crate::agent) fn argument(&self, value: &str) -> Result<String, String> {
        let checked = self.values.check(value);
        checked.map_err(|problem| format!("annotation {} {value:?}: {problem}", self.name))?;
        Ok(format!("--{}={}", self.flag, self.complete(value)))
    }

    /// The annotation's ports and the ports that istio-cni adds, without duplicates.
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
    fn values_that_istio_cni_refuses_are_refused() {
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
    fn blanks_are_accepted_where_istio_cni_accepts_them() {
        let accepts = |name: &str, value| {
            let mut found = ANNOTATIONS.iter();
            let annotation = found.find(|annotation| annotation.name.ends_with(name));
            annotation.expect("an annotation").argument(value).is_ok()
        };
        assert!(accepts("includeInboundPorts", "80, 443\t"));
        assert!(accepts("excludeInterfaces", " net1, net2 "));
        assert!(accepts("includeOutboundIPRanges", ""));
        assert!(!accepts("includeInboundPorts", " "));
        assert!(!accepts("includeOutboundIPRanges", " 10.0.0.0/8"));
    }
}
