//! A socket (`struct bpf_sock`): a member of other contexts, and the context of `sock_create`.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
};
use interceptor_ebpf::{Address, NetnsCookie};
use zerocopy::FromBytes;

use super::netns_of;
use crate::programs::uapi::{AF_INET6, IPPROTO_TCP, SOCK_STREAM};

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

    /// Whether this is a TCP socket, not a raw one with TCP's number.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        self.protocol() == IPPROTO_TCP && self.kind() == SOCK_STREAM
    }

    /// `SOCK_STREAM`, `SOCK_RAW` …
    #[inline(always)]
    pub(crate) fn kind(self) -> u32 {
        read!(self.0, bpf_sock, u32 type_)
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

    /// Whether a packet between these addresses, which are of the same family, may be of this
    /// socket's connection. (An IPv6 socket may have an IPv4 connection.)
    #[inline(always)]
    pub(crate) fn is_between(self, local: Address, remote: Address) -> bool {
        if local.is_v4() {
            let dialled = Address::from_v4(read!(self.0, bpf_sock, u32 dst_ip4));
            self.local_v4() == local && dialled == remote
        } else {
            self.family() == AF_INET6
                && self.local_v6() == local
                && read_v6!(self.0, bpf_sock, dst_ip6) == remote
        }
    }

    /// The socket's value in `map`, created as zeros if `create`. `None` if there is none, or no
    /// memory for one.
    #[inline(always)]
    pub(crate) fn stored_in<T: FromBytes>(
        self,
        map: &'static SkStorage<T>,
        create: bool,
    ) -> Option<&'static T> {
        let flags = if create {
            BPF_SK_STORAGE_GET_F_CREATE
        } else {
            0
        };
        let map = ptr::from_ref(map).cast_mut().cast();
        // SAFETY: the map keeps values of this type for sockets; zeros are valid.
        unsafe {
            let value = bpf_sk_storage_get(map, self.0.cast(), ptr::null_mut(), flags.into());
            value.cast::<T>().as_ref()
        }
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

    /// `SOCK_STREAM`, `SOCK_RAW` …
    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        read!(self.0, bpf_sock, u32 type_)
    }

    #[inline(always)]
    pub(crate) fn family(&self) -> u32 {
        read!(self.0, bpf_sock, u32 family)
    }
}
