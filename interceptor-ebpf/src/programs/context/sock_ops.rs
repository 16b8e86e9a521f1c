//! The context of `sockops` (`struct bpf_sock_ops`).

use aya_ebpf::{bindings::bpf_sock_ops, helpers::bpf_get_socket_cookie};
use interceptor_ebpf::{Address, NetnsCookie};

use super::netns_of;
use crate::programs::uapi::AF_INET6;

/// `struct bpf_sock_ops`: an event of a TCP socket.
pub(crate) struct SockOps {
    context: *mut bpf_sock_ops,
}

impl SockOps {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sock_ops) -> Self {
        Self { context }
    }

    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *mut bpf_sock_ops {
        self.context
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        netns_of(self.context.cast())
    }

    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: sock_ops has this helper.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    #[inline(always)]
    pub(crate) fn local_address(&self) -> Address {
        if read!(self.context, bpf_sock_ops, u32 family) == AF_INET6 {
            read_v6!(self.context, bpf_sock_ops, local_ip6)
        } else {
            Address::from_v4(read!(self.context, bpf_sock_ops, u32 local_ip4))
        }
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn local_port(&self) -> u16 {
        read!(self.context, bpf_sock_ops, u32 local_port) as u16
    }

    #[inline(always)]
    pub(crate) fn remote_address(&self) -> Address {
        if read!(self.context, bpf_sock_ops, u32 family) == AF_INET6 {
            read_v6!(self.context, bpf_sock_ops, remote_ip6)
        } else {
            Address::from_v4(read!(self.context, bpf_sock_ops, u32 remote_ip4))
        }
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn remote_port(&self) -> u16 {
        // The port is in network byte order in the half that comes last in memory.
        u32::from_be(read!(self.context, bpf_sock_ops, u32 remote_port)) as u16
    }
}
