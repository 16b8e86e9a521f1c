//! The context of `sk_lookup` (`struct bpf_sk_lookup`).

use core::arch::asm;

use aya_ebpf::bindings::bpf_sk_lookup;
use interceptor_ebpf::Address;

use crate::programs::uapi::AF_INET;

/// `struct bpf_sk_lookup`: the lookup of a listening socket for a packet.
pub(crate) struct SkLookup {
    context: *mut bpf_sk_lookup,
}

impl SkLookup {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sk_lookup) -> Self {
        Self { context }
    }

    /// The packet's incoming interface.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        read!(self.context, bpf_sk_lookup, u32 ingress_ifindex)
    }

    /// The distance of the context from `other`. (For the verifier, the difference of two pointers
    /// is a plain number only if it is computed by this one instruction.)
    #[expect(
        clippy::pointers_in_nomem_asm_block,
        reason = "the pointer is a number here; nothing is read through it"
    )]
    #[inline(always)]
    pub(crate) fn distance_from<T>(&self, other: *const T) -> u64 {
        let mut distance = self.context as u64;
        // SAFETY: arithmetic only.
        unsafe {
            asm!(
                "{distance} -= {other}",
                distance = inout(reg) distance,
                other = in(reg) other,
                options(pure, nomem, nostack),
            );
        }
        distance
    }

    #[inline(always)]
    fn is_v4(&self) -> bool {
        read!(self.context, bpf_sk_lookup, u32 family) == AF_INET
    }

    #[inline(always)]
    pub(crate) fn local_address(&self) -> Address {
        if self.is_v4() {
            Address::from_v4(read!(self.context, bpf_sk_lookup, u32 local_ip4))
        } else {
            read_v6!(self.context, bpf_sk_lookup, local_ip6)
        }
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn local_port(&self) -> u16 {
        read!(self.context, bpf_sk_lookup, u32 local_port) as u16
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn remote_port(&self) -> u16 {
        u16::from_be(read!(self.context, bpf_sk_lookup, u16 remote_port))
    }

    #[inline(always)]
    pub(crate) fn remote_address(&self) -> Address {
        if self.is_v4() {
            Address::from_v4(read!(self.context, bpf_sk_lookup, u32 remote_ip4))
        } else {
            read_v6!(self.context, bpf_sk_lookup, remote_ip6)
        }
    }
}
