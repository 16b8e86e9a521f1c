//! Packets, as the hooks of an interface are shown them (`struct __sk_buff`).

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

/// What a packet's IP header says.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) is_tcp: bool,
    /// Whether it is no fragment, and no extension headers come before TCP's.
    pub(crate) is_plain: bool,
    /// Where TCP's header begins, counted from IP's.
    transport: u32,
}

/// What a packet's TCP header says: both ports, in host byte order, and whether it begins a
/// connection.
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) is_first: bool,
}

/// One of the ends that a packet names.
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

    /// The network namespace of that interface.
    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        // SAFETY: this is the context of a hook of an interface.
        unsafe { NetPointer::of_packet(self.context.cast()) }.cookie()
    }

    /// The interface that it came in by, or leaves by.
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
            // SAFETY: the helper writes as many bytes as it is told, which is what the value has.
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

/// Only for types that any bytes are valid for: those of this module.
#[inline(always)]
fn load_by<T>(load: impl FnOnce(*mut c_void, u32) -> i64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    if load(value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
        return None;
    }
    // SAFETY: all of it was written.
    Some(unsafe { value.assume_init() })
}
