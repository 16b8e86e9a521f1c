//! Why a connection passes, is captured or is refused.

/// Declares an enum of reasons: for each variant the metric label and the text that logs and
/// `explain` show.
macro_rules! reasons {
    (
        $(#[$attribute:meta])*
        $name:ident {
            $($(#[$note:meta])* $variant:ident: $label:literal, $text:literal;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name {
            $(
                #[doc = $text]
                $(#[$note])*
                $variant,
            )*
        }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$variant),*];

            /// The label in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }

            /// The text in logs and in `explain`.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The first rule that matched. The numbers are indices of [`crate::Counts`]: append, do not
    /// reorder.
    #[expect(clippy::doc_markdown, reason = "the texts are for logs, without Markdown")]
    Reason {
        Ipv6Disabled: "ipv6_disabled", "IPv6 capture is disabled for the pod";
        OutboundInterfaceExcluded: "outbound_interface_excluded",
            "the outgoing interface is excluded (-c)";
        OutboundPortExcluded: "outbound_port_excluded", "the port is excluded (-o)";
        /// The connection leaves by `lo`: Envoy's inbound passthrough, or a probe of pilot-agent.
        PassthroughSource: "passthrough_source",
            "the source is the proxy's passthrough address (127.0.0.6 or ::6)";
        /// The destination is an address of the pod other than localhost.
        ProxyToSelf: "proxy_to_self", "the proxy connects to its own pod";
        AppToSelf: "app_to_self", "the app connects to its own pod";
        ProxyUidGid: "proxy_uid_gid", "the socket's owner is the proxy (-u, -g)";
        OwnerGroupExcluded: "owner_group_excluded",
            "the socket owner's group is excluded (ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE)";
        OwnerGroupNotIncluded: "owner_group_not_included",
            "the socket owner's group is not included (ISTIO_OUTBOUND_OWNER_GROUPS)";
        DnsQuery: "dns_query", "the destination is a DNS server (--redirect-dns)";
        /// `127.0.0.1`, unless a loopback CIDR is set, or `::1`.
        ToLocalhost: "to_localhost", "the destination is localhost";
        PrefixExcluded: "prefix_excluded", "the destination is excluded (-x)";
        OutboundPortIncluded: "outbound_port_included", "the port is included (-q)";
        PrefixIncluded: "prefix_included", "the destination is included (-i)";
        PrefixNotIncluded: "prefix_not_included", "the destination is not included (-i)";
        NotTcp: "not_tcp", "the protocol is not TCP";
        InboundInterfaceExcluded: "inbound_interface_excluded",
            "the incoming interface is excluded (-c)";
        Rerouted: "rerouted", "the incoming interface is rerouted (-k)";
        ReroutedNotIncluded: "rerouted_not_included",
            "the incoming interface is rerouted (-k), and the destination is not included (-i)";
        InboundDisabled: "inbound_disabled", "inbound capture is disabled (-b '')";
        TunnelPort: "tunnel_port", "the port is the mesh's tunnel port (-e)";
        InboundPortExcluded: "inbound_port_excluded", "the port is excluded (-d)";
        InboundPortIncluded: "inbound_port_included", "the port is included (-b)";
        InboundPortNotIncluded: "inbound_port_not_included", "the port is not included (-b)";
    }
}

reasons! {
    /// Why a connection that is to be captured is refused. The numbers are indices of
    /// [`crate::Counts`]: append, do not reorder.
    Refusal {
        NoRoute: "no_route", "the pod's routing rejects the destination";
        TableFull: "table_full", "no stand-in can be allocated: the table is full";
        UnknownStandIn: "unknown_stand_in",
            "the destination is a stand-in that is not allocated";
        NoListener: "no_listener", "the proxy does not listen on its port";
        /// `IPV6_RTHDR` or `IP_OPTIONS`.
        SourceRoute: "source_route",
            "the socket has a source route, which would bypass the proxy";
        /// `SO_BINDTODEVICE`.
        BoundInterface: "bound_interface",
            "the socket is bound to an interface that does not reach the proxy";
        NotProxy: "not_proxy",
            "strict mode: the socket that listens on the proxy's port is not the proxy's";
        StrictPastProxy: "strict_past_proxy",
            "strict mode: a connection that is to be captured leaves the pod past the proxy";
        /// Raw and packet sockets, and packets that the pod forwards.
        StrictNoSocket: "strict_no_socket",
            "strict mode: the packet does not belong to a TCP connection of the pod";
        StrictForgedSource: "strict_forged_source",
            "strict mode: a packet from outside the pod has an address of the pod as its source";
        StrictHeaders: "strict_headers", "strict mode: the packet's headers hide the TCP header";
        /// Only with `--strict=all`.
        StrictProtocol: "strict_protocol",
            "strict mode: the protocol is not TCP, and no setting exempts the packet";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique() {
        let labels = || {
            let reasons = Reason::ALL.into_iter().map(Reason::name);
            reasons.chain(Refusal::ALL.into_iter().map(Refusal::name))
        };
        for label in labels() {
            assert_eq!(
                labels().filter(|other| *other == label).count(),
                1,
                "{label}"
            );
        }
    }
}
