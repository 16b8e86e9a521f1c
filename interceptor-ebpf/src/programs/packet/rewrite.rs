//! Rewrites a packet's addresses and ports.

use core::{mem::offset_of, ptr};

use aya_ebpf::{
    bindings::{BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use interceptor_ebpf::{Address, StandIn};

use super::{
    End, Ip, Packet, Tcp,
    headers::{ArpHeader, LINK_HEADERS, TcpHeader, V4Header, V6Header},
    load_by,
};

impl Packet {
    /// Replaces the address and port at one end with `new`. Returns false if any part failed: the
    /// packet is corrupt then.
    #[inline(always)]
    pub(crate) fn rewrite(&self, ip: &Ip, tcp: Tcp, end: End, new: StandIn) -> bool {
        let Some(link) = self.link_header() else {
            return false;
        };
        let (old_address, old_port) = match end {
            End::Source => (ip.from, tcp.from),
            End::Destination => (ip.to, tcp.to),
        };
        let transport = link + ip.transport;
        let checksum = transport + offset_of!(TcpHeader, checksum) as u32;
        let port = transport
            + match end {
                End::Source => offset_of!(TcpHeader, source),
                End::Destination => offset_of!(TcpHeader, destination),
            } as u32;
        let addresses = if let (Some(old), Some(new)) = (old_address.v4(), new.address.v4()) {
            self.rewrite_v4(link, checksum, end, old, new)
        } else {
            let (old, new) = (old_address.words(), new.address.words());
            self.rewrite_v6(link, checksum, end, old, new)
        };
        let (old, new) = (old_port.to_be(), new.port.to_be());
        // SAFETY: the helper checks the offset.
        let ports =
            unsafe { bpf_l4_csum_replace(self.context, checksum, old.into(), new.into(), 2) == 0 };
        addresses && ports && self.store(port, new, 0)
    }

    #[inline(always)]
    fn rewrite_v4(&self, link: u32, tcp_checksum: u32, end: End, old: u32, new: u32) -> bool {
        let field = match end {
            End::Source => offset_of!(V4Header, source),
            End::Destination => offset_of!(V4Header, destination),
        } as u32;
        let checksum = link + offset_of!(V4Header, checksum) as u32;
        let (from, to) = (old.into(), new.into());
        let flags = u64::from(BPF_F_PSEUDO_HDR) | size_of::<u32>() as u64;
        // SAFETY: the helpers check the offsets.
        let checksums = unsafe {
            bpf_l4_csum_replace(self.context, tcp_checksum, from, to, flags) == 0
                && bpf_l3_csum_replace(self.context, checksum, from, to, 4) == 0
        };
        checksums && self.store(link + field, new, 0)
    }

    /// IPv6 has no header checksum: where the network card has summed the whole packet,
    /// `BPF_F_RECOMPUTE_CSUM` updates that sum.
    #[inline(always)]
    fn rewrite_v6(
        &self,
        link: u32,
        tcp_checksum: u32,
        end: End,
        mut old: [u32; 4],
        mut new: [u32; 4],
    ) -> bool {
        let field = match end {
            End::Source => offset_of!(V6Header, source),
            End::Destination => offset_of!(V6Header, destination),
        } as u32;
        let size = size_of::<[u32; 4]>() as u32;
        // SAFETY: both addresses have the given size; the helpers check the offset.
        let checksum = unsafe {
            let difference =
                bpf_csum_diff(old.as_mut_ptr(), size, new.as_mut_ptr(), size, 0) as u64;
            let flags = u64::from(BPF_F_PSEUDO_HDR);
            bpf_l4_csum_replace(self.context, tcp_checksum, 0, difference, flags) == 0
        };
        checksum && self.store(link + field, new, BPF_F_RECOMPUTE_CSUM.into())
    }

    /// Replaces the sender's address of an ARP packet. Returns whether that succeeded.
    #[inline(always)]
    pub(crate) fn set_arp_sender(&self, sender: Address) -> bool {
        let field = LINK_HEADERS[0] + offset_of!(ArpHeader, sender) as u32;
        self.store(field, sender.words()[3], 0)
    }

    /// The offset of the IP header in the packet, which programs cannot read: found by comparison.
    #[inline(always)]
    fn link_header(&self) -> Option<u32> {
        let expected: [u32; 5] = self.load(0)?;
        LINK_HEADERS
            .into_iter()
            .find(|length| self.load_from_start(*length) == Some(expected))
    }

    #[inline(always)]
    fn load_from_start<T>(&self, offset: u32) -> Option<T> {
        load_by(|value, size| {
            // SAFETY: as above.
            unsafe { bpf_skb_load_bytes(self.context.cast(), offset, value, size) }
        })
    }

    /// Writes `value` at an offset from the start of the packet.
    #[inline(always)]
    fn store<T>(&self, offset: u32, value: T, flags: u64) -> bool {
        let value = ptr::from_ref(&value).cast();
        // SAFETY: the helper reads the value's size, and checks the offset.
        unsafe {
            bpf_skb_store_bytes(self.context, offset, value, size_of::<T>() as u32, flags) == 0
        }
    }
}
