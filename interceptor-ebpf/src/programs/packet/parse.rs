//! Parses the headers of a packet.

use aya_ebpf::bindings::__sk_buff;
use interceptor_ebpf::Address;

use super::{
    Ip, Packet, Segment, Tcp,
    headers::{ArpHeader, TcpHeader, V4Header, V6Header},
};
use crate::programs::{
    context::read,
    uapi::{
        ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, IPPROTO_ICMP, IPPROTO_ICMPV6,
        IPPROTO_TCP, IPPROTO_UDP,
    },
};

/// `VLAN_VID_MASK`: the VLAN's number in its tag, beside a priority.
const VLAN_ID: u32 = 0x0fff;

/// `PACKET_OTHERHOST`: the link layer's destination is another station.
const OTHER_HOST: u32 = 3;

/// IPv6's extension headers (`ipv6_ext_hdr`), and AH.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// The maximum number of extension headers to parse. A packet with more counts as TCP.
const EXTENSION_HEADERS: u32 = 6;

impl Packet {
    /// Whether the packet is for another station, or for a virtual interface on top of this one,
    /// whose own hook sees it next: a VLAN, a `macvlan`. VLAN 0 is no VLAN: its tag has only a
    /// priority, and the kernel removes it after this hook (`__netif_receive_skb_core`).
    #[inline(always)]
    pub(crate) fn is_for_others(&self) -> bool {
        read!(self.context, __sk_buff, u32 pkt_type) == OTHER_HOST
            || read!(self.context, __sk_buff, u32 vlan_tci) & VLAN_ID != 0
    }

    /// Whether a second tag of VLAN 0 follows the one that the kernel has removed. The kernel
    /// removes it after this hook, and processes a packet that this program could not parse.
    #[inline(always)]
    pub(crate) fn is_tagged_twice(&self) -> bool {
        matches!(self.protocol(), ETH_P_8021Q | ETH_P_8021AD)
            && self
                .load::<[u16; 2]>(0)
                .is_none_or(|[tag, _]| u32::from(u16::from_be(tag)) & VLAN_ID == 0)
    }

    /// The IP header. `None` without one, or if it is truncated, as the kernel drops the packet.
    #[inline(always)]
    pub(crate) fn ip(&self) -> Option<Ip> {
        match self.protocol() {
            ETH_P_IP => self.v4(),
            ETH_P_IPV6 => self.v6(),
            _ => None,
        }
    }

    #[inline(always)]
    fn v4(&self) -> Option<Ip> {
        const FRAGMENT_OFFSET: u16 = 0x1fff;
        const FRAGMENT_OFFSET_AND_MORE: u16 = 0x3fff;

        let header: V4Header = self.load(0)?;
        let fragment = u16::from_be(header.fragment);
        Some(Ip {
            from: Address::from_v4(header.source),
            to: Address::from_v4(header.destination),
            is_tcp: u32::from(header.protocol) == IPPROTO_TCP,
            protocol: header.protocol,
            is_later_fragment: fragment & FRAGMENT_OFFSET != 0,
            end: u16::from_be(header.total_length).into(),
            is_plain: fragment & FRAGMENT_OFFSET_AND_MORE == 0,
            transport: u32::from(header.version_and_length & 0xf) * 4,
        })
    }

    #[inline(always)]
    fn v6(&self) -> Option<Ip> {
        let header: V6Header = self.load(0)?;
        let is_plain = u32::from(header.next) == IPPROTO_TCP;
        let transport = size_of::<V6Header>() as u32;
        // 0 in packets of more than 64 KiB.
        let end = match u16::from_be(header.payload_length) {
            0 => 0,
            length => transport + u32::from(length),
        };
        Some(Ip {
            from: Address::from_words(header.source),
            to: Address::from_words(header.destination),
            is_tcp: is_plain || self.may_hide_tcp(header.next),
            protocol: header.next,
            is_later_fragment: false,
            end,
            is_plain,
            transport,
        })
    }

    /// Whether TCP may follow the extension headers that start with `next`, as ip6tables parses
    /// them (`ipv6_find_hdr`).
    #[inline(always)]
    fn may_hide_tcp(&self, mut next: u8) -> bool {
        let mut offset = size_of::<V6Header>() as u32;
        for _ in 0..EXTENSION_HEADERS {
            if u32::from(next) == IPPROTO_TCP {
                return true;
            }
            let Some([following, length]) = self.load::<[u8; 2]>(offset) else {
                return false;
            };
            offset += match next {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => {
                    (u32::from(length) + 1) * 8
                }
                AUTHENTICATION => (u32::from(length) + 2) * 4,
                FRAGMENT => 8,
                _ => return false,
            };
            next = following;
        }
        true
    }

    /// The TCP header. `None` if it is truncated.
    #[inline(always)]
    pub(crate) fn tcp(&self, ip: &Ip) -> Option<Tcp> {
        let header: TcpHeader = self.load(ip.transport)?;
        Some(Tcp {
            from: u16::from_be(header.source),
            to: u16::from_be(header.destination),
            is_first: header.is_first(),
        })
    }

    /// The TCP header for strict mode. `None` if it is truncated.
    #[inline(always)]
    pub(crate) fn segment(&self, ip: &Ip) -> Option<Segment> {
        let header: TcpHeader = self.load(ip.transport)?;
        let is_first = header.is_first();
        let data = ip.transport + u32::from(header.offset >> 4) * 4;
        Some(Segment {
            tcp: Tcp {
                from: u16::from_be(header.source),
                to: u16::from_be(header.destination),
                is_first,
            },
            // The data of a fragmented segment may follow in other fragments.
            is_bare: !is_first && ip.is_plain && ip.end != 0 && ip.end <= data,
        })
    }

    /// Both ports of a UDP datagram. `None` if this is not one, or a fragment, or truncated.
    #[inline(always)]
    pub(crate) fn udp_ports(&self, ip: &Ip) -> Option<[u16; 2]> {
        // In IPv6, fragments have a header of their own.
        let is_fragment = ip.from.is_v4() && !ip.is_plain;
        if u32::from(ip.protocol) != IPPROTO_UDP || is_fragment {
            return None;
        }
        let ports: [u16; 2] = self.load(ip.transport)?;
        Some(ports.map(u16::from_be))
    }

    /// The type of an ICMP message, of either family. `None` if this is not one, or truncated.
    #[inline(always)]
    pub(crate) fn icmp_type(&self, ip: &Ip) -> Option<u8> {
        /// The size of the hop-by-hop header with the router alert, which multicast reports have.
        const ROUTER_ALERT: u32 = 8;

        match (ip.from.is_v4(), ip.protocol) {
            (true, IPPROTO_ICMP) | (false, IPPROTO_ICMPV6) => self.load(ip.transport),
            (false, HOP_BY_HOP) => match self.load::<[u8; 2]>(ip.transport)? {
                [IPPROTO_ICMPV6, 0] => self.load(ip.transport + ROUTER_ALERT),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a VLAN's tag follows the one that the kernel has removed, if any: the content cannot
    /// be parsed.
    #[inline(always)]
    pub(crate) fn has_inner_tag(&self) -> bool {
        matches!(self.protocol(), ETH_P_8021Q | ETH_P_8021AD)
    }

    #[inline(always)]
    pub(crate) fn is_arp(&self) -> bool {
        self.protocol() == ETH_P_ARP
    }

    /// The sender's address of an ARP request or reply.
    #[inline(always)]
    pub(crate) fn arp_sender(&self) -> Option<Address> {
        if !self.is_arp() {
            return None;
        }
        let header: ArpHeader = self.load(0)?;
        Some(Address::from_v4(zerocopy::transmute!(header.sender)))
    }
}
