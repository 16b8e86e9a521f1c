//! The context of tc programs: a packet (`struct __sk_buff`).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::bpf_skb_load_bytes_relative,
};
use interceptor_ebpf::{Address, NetnsCookie};

use super::{context::read, kernel_memory::NetPointer};

mod headers;
mod parse;
mod rewrite;
mod sockets;

pub(crate) use sockets::{NetnsId, Sender};

/// The content of a packet's IP header.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) from: Address,
    pub(crate) to: Address,
    /// TCP, or headers that may hide TCP.
    pub(crate) is_tcp: bool,
    /// The protocol that follows the header, for IPv6 perhaps an extension header.
    pub(crate) protocol: u8,
    /// Whether this is a fragment of IPv4 without the transport header.
    pub(crate) is_later_fragment: bool,
    /// The packet's end as an offset from the IP header; 0 if the header does not have it.
    end: u32,
    /// Whether this is no fragment, and there are no extension headers before TCP's.
    pub(crate) is_plain: bool,
    /// The offset of TCP's header from IP's.
    transport: u32,
}

/// The content of a packet's TCP header: both ports, in host byte order, and whether this is the
/// first packet of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) is_first: bool,
}

/// What strict mode needs of a TCP header.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) tcp: Tcp,
    /// Whether it carries neither data nor the first SYN: it acknowledges, resets or ends a
    /// connection.
    pub(crate) is_bare: bool,
}

/// What the kernel does with a packet.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum TcAction {
    /// Continue with the programs of others (`TC_ACT_UNSPEC`, `TCX_NEXT`).
    Continue = -1,
    /// Drop the packet (`TC_ACT_SHOT`, `TCX_DROP`).
    Drop = 2,
}

/// One end of a connection, in a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

pub(crate) struct Packet {
    context: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    pub(crate) const fn new(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    /// The network namespace of the packet's interface.
    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        // SAFETY: this is the context of a tc program.
        unsafe { NetPointer::of_packet(self.context.cast()) }.cookie()
    }

    /// The interface of the program: incoming or outgoing.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        read!(self.context, __sk_buff, u32 ifindex)
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        u16::from_be(read!(self.context, __sk_buff, u32 protocol) as u16)
    }

    /// Reads `T` at an offset from the IP header.
    #[inline(always)]
    fn load<T>(&self, offset: u32) -> Option<T> {
        load_by(|value, size| {
            // SAFETY: the helper writes `size` bytes, the size of the value.
            unsafe {
                bpf_skb_load_bytes_relative(
                    self.context.cast(),
                    offset,
                    value,
                    size,
                    BPF_HDR_START_NET,
                )
            }
        })
    }
}

/// Only for types of which any bytes are a valid value: those of this module.
#[inline(always)]
fn load_by<T>(load: impl FnOnce(*mut c_void, u32) -> i64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    if load(value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
        return None;
    }
    // SAFETY: all of it was written.
    Some(unsafe { value.assume_init() })
}
