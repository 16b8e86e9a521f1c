//! A socket (`struct bpf_sock`): a member of other contexts, and the context of `sock_create`.

use aya_ebpf::bindings::bpf_sock;
use interceptor_ebpf::{Address, NetnsCookie};

use super::netns_of;
use crate::programs::uapi::AF_INET6;

/// `struct bpf_sock`: a full socket.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*mut bpf_sock);

impl Sock {
    /// A socket from a map of sockets or from a helper.
    #[inline(always)]
    pub(crate) const fn new(sock: *mut bpf_sock) -> Self {
        Self(sock)
    }

    #[inline(always)]
    pub(super) const fn as_ptr(self) -> *mut bpf_sock {
        self.0
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u32 {
        read!(self.0, bpf_sock, u32 family)
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u32 {
        read!(self.0, bpf_sock, u32 protocol)
    }

    /// Whether a UDP socket is connected.
    #[inline(always)]
    pub(crate) fn is_connected(self) -> bool {
        self.remote_port() != 0
    }

    /// `SO_MARK`
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        read!(self.0, bpf_sock, u32 mark)
    }

    /// TCP's state (`TCP_CLOSE` …).
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        read!(self.0, bpf_sock, u32 state)
    }

    /// `SO_BINDTODEVICE`, which connecting to a link-local address sets too; 0 if unbound.
    #[inline(always)]
    pub(crate) fn bound_interface(self) -> u32 {
        read!(self.0, bpf_sock, u32 bound_dev_if)
    }

    #[inline(always)]
    pub(super) fn local_v4(self) -> Address {
        Address::from_v4(read!(self.0, bpf_sock, u32 src_ip4))
    }

    #[inline(always)]
    pub(super) fn local_v6(self) -> Address {
        read_v6!(self.0, bpf_sock, src_ip6)
    }

    #[inline(always)]
    pub(crate) fn local_address(self) -> Address {
        if self.family() == AF_INET6 {
            self.local_v6()
        } else {
            self.local_v4()
        }
    }

    /// In host byte order; 0 after a reset, which releases the port.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        read!(self.0, bpf_sock, u32 src_port) as u16
    }

    #[inline(always)]
    pub(crate) fn remote_address(self) -> Address {
        if self.family() == AF_INET6 {
            read_v6!(self.0, bpf_sock, dst_ip6)
        } else {
            Address::from_v4(read!(self.0, bpf_sock, u32 dst_ip4))
        }
    }

    /// In host byte order; 0 in a socket that was never connected.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        u16::from_be(read!(self.0, bpf_sock, u16 dst_port))
    }
}

/// `struct bpf_sock` as the context of `sock_create`.
pub(crate) struct NewSocket(*mut bpf_sock);

impl NewSocket {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sock) -> Self {
        Self(context)
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        netns_of(self.0.cast())
    }

    #[inline(always)]
    pub(crate) fn protocol(&self) -> u32 {
        read!(self.0, bpf_sock, u32 protocol)
    }
}
