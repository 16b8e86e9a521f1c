//! The headers of packets.

/// The possible lengths of the link layer's header: Ethernet's, or 0 for interfaces without one.
pub(super) const LINK_HEADERS: [u32; 2] = [14, 0];

/// `struct iphdr`
#[repr(C)]
pub(super) struct V4Header {
    pub(super) version_and_length: u8,
    pub(super) service: u8,
    pub(super) total_length: u16,
    pub(super) id: u16,
    pub(super) fragment: u16,
    pub(super) time_to_live: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) source: u32,
    pub(super) destination: u32,
}

/// `struct ipv6hdr`
#[repr(C)]
pub(super) struct V6Header {
    pub(super) version_and_flow: u32,
    pub(super) payload_length: u16,
    pub(super) next: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [u32; 4],
    pub(super) destination: [u32; 4],
}

/// `struct tcphdr`
#[repr(C)]
pub(super) struct TcpHeader {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) offset: u8,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) checksum: u16,
    pub(super) urgent: u16,
}

impl TcpHeader {
    const SYN: u8 = 1 << 1;
    const ACK: u8 = 1 << 4;

    /// Whether this is the first packet of a connection.
    #[inline(always)]
    pub(super) const fn is_first(&self) -> bool {
        self.flags & (Self::SYN | Self::ACK) == Self::SYN
    }
}

/// `struct arphdr` and the members that follow it for IPv4 on Ethernet, up to the sender's address.
#[repr(C)]
pub(super) struct ArpHeader {
    pub(super) head: [u8; 8],
    pub(super) sender_hardware: [u8; 6],
    pub(super) sender: [u16; 2],
}
