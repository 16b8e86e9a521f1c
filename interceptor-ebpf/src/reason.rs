//! Why a verdict is what it is.

/// Why a verdict is what it is: the rule that was the first to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The pod's IPv6 is not captured.
    Ipv6Off,
    /// `-c` excludes the interface that it leaves by.
    OutboundInterfaceExcluded,
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
    /// The owner's group is excluded.
    OwnerGroupExcluded,
    /// The owner's group is not included.
    OwnerGroupNotIncluded,
    /// It asks a DNS server.
    DnsQuery,
    /// It goes to localhost: `127.0.0.1`, unless a loopback CIDR is set, or `::1`.
    ToLocalhost,
    /// `-x` excludes the destination.
    PrefixExcluded,
    /// `-q` includes the port.
    OutboundPortIncluded,
    /// `-i` includes the destination.
    PrefixIncluded,
    /// `-i` does not include the destination.
    PrefixNotIncluded,
    /// Only TCP is redirected.
    NotTcp,
    /// `-c` excludes the interface that it came in by.
    InboundInterfaceExcluded,
    /// It came in by an interface of `-k`, and `-i` includes the destination.
    Rerouted,
    /// It came in by an interface of `-k`, and `-i` does not include the destination.
    ReroutedNotIncluded,
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
    pub const ALL: [Self; 24] = [
        Self::Ipv6Off,
        Self::OutboundInterfaceExcluded,
        Self::OutboundPortExcluded,
        Self::PassthroughSource,
        Self::ProxyToSelf,
        Self::AppToSelf,
        Self::ProxyOwned,
        Self::OwnerGroupExcluded,
        Self::OwnerGroupNotIncluded,
        Self::DnsQuery,
        Self::ToLocalhost,
        Self::PrefixExcluded,
        Self::OutboundPortIncluded,
        Self::PrefixIncluded,
        Self::PrefixNotIncluded,
        Self::NotTcp,
        Self::InboundInterfaceExcluded,
        Self::Rerouted,
        Self::ReroutedNotIncluded,
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
            Self::OutboundInterfaceExcluded => "the interface that it leaves by is excluded (-c)",
            Self::OutboundPortExcluded => "the port is excluded (-o)",
            Self::PassthroughSource => "it comes from the proxy's passthrough address",
            Self::ProxyToSelf => "the proxy calls its own pod",
            Self::AppToSelf => "the pod calls itself",
            Self::ProxyOwned => "the proxy opened the socket",
            Self::OwnerGroupExcluded => {
                "the owner's group is excluded (ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE)"
            }
            Self::OwnerGroupNotIncluded => {
                "the owner's group is not included (ISTIO_OUTBOUND_OWNER_GROUPS)"
            }
            Self::DnsQuery => "it asks a DNS server (--redirect-dns)",
            Self::ToLocalhost => "it goes to localhost",
            Self::PrefixExcluded => "the destination is excluded (-x)",
            Self::OutboundPortIncluded => "the port is included (-q)",
            Self::PrefixIncluded => "the destination is included (-i)",
            Self::PrefixNotIncluded => "the destination is not included (-i)",
            Self::NotTcp => "it is not TCP",
            Self::InboundInterfaceExcluded => "the interface that it came in by is excluded (-c)",
            Self::Rerouted => "it came in by a rerouted interface (-k)",
            Self::ReroutedNotIncluded => {
                "it came in by a rerouted interface (-k), and the destination is not included (-i)"
            }
            Self::InboundOff => "inbound capture is off (-b '')",
            Self::ToTunnel => "it comes to the mesh's tunnel (-e)",
            Self::InboundPortExcluded => "the port is excluded (-d)",
            Self::InboundPortIncluded => "the port is included (-b)",
            Self::InboundPortNotIncluded => "the port is not included (-b)",
        }
    }

    /// The reason's name, as metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv6Off => "ipv6_off",
            Self::OutboundInterfaceExcluded => "outbound_interface_excluded",
            Self::OutboundPortExcluded => "outbound_port_excluded",
            Self::PassthroughSource => "passthrough_source",
            Self::ProxyToSelf => "proxy_to_self",
            Self::AppToSelf => "app_to_self",
            Self::ProxyOwned => "proxy_owned",
            Self::OwnerGroupExcluded => "owner_group_excluded",
            Self::OwnerGroupNotIncluded => "owner_group_not_included",
            Self::DnsQuery => "dns_query",
            Self::ToLocalhost => "to_localhost",
            Self::PrefixExcluded => "prefix_excluded",
            Self::OutboundPortIncluded => "outbound_port_included",
            Self::PrefixIncluded => "prefix_included",
            Self::PrefixNotIncluded => "prefix_not_included",
            Self::NotTcp => "not_tcp",
            Self::InboundInterfaceExcluded => "inbound_interface_excluded",
            Self::Rerouted => "rerouted",
            Self::ReroutedNotIncluded => "rerouted_not_included",
            Self::InboundOff => "inbound_off",
            Self::ToTunnel => "to_tunnel",
            Self::InboundPortExcluded => "inbound_port_excluded",
            Self::InboundPortIncluded => "inbound_port_included",
            Self::InboundPortNotIncluded => "inbound_port_not_included",
        }
    }
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
