//! The context of `connect`, `sendmsg`, `recvmsg`, `getpeername` and `getsockname` (`struct
//! bpf_sock_addr`).

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr},
    btf_maps::SkStorage,
    helpers::{bpf_bind, bpf_get_socket_cookie, bpf_setsockopt, generated::bpf_sk_storage_get},
};
use interceptor_ebpf::{Address, NetnsCookie, Transport};
use zerocopy::FromBytes;

use super::{Sock, netns_of};
use crate::programs::{
    kernel_memory::{SocketPointer, interface_of_datagram, scope_in_context},
    uapi::{
        AF_INET, AF_INET6, Family, IPPROTO_UDP, LOOPBACK, SO_BINDTOIFINDEX, SOL_SOCKET, SockAddrIn,
        SockAddrIn6,
    },
};

/// `struct bpf_sock_addr`: the address that `connect`, `getpeername` or `getsockname` is about.
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    context: *mut bpf_sock_addr,
    family: Family,
}

impl SockAddr {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sock_addr, family: Family) -> Self {
        Self { context, family }
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        netns_of(self.context.cast())
    }

    /// The socket's cookie, unique until reboot.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: sock_addr has this helper.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// The socket's protocol. (For an MPTCP socket the hook runs with its TCP subflow.)
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u32 {
        read!(self.context, bpf_sock_addr, u32 protocol)
    }

    /// The socket's transport; TCP if it is neither.
    #[inline(always)]
    pub(crate) fn transport(&self) -> Transport {
        match self.protocol() {
            IPPROTO_UDP => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// The socket's value in `map`, if it has one.
    #[inline(always)]
    pub(crate) fn stored<T>(&self, map: &'static SkStorage<T>) -> Option<&'static T> {
        // SAFETY: the value is valid, and lives as long as the socket.
        unsafe { self.storage(map, 0).as_ref() }
    }

    /// Changes the socket's value in `map`, which is zeros initially. Returns false if there is no
    /// memory.
    #[inline(always)]
    pub(crate) fn store<T: FromBytes>(
        &self,
        map: &'static SkStorage<T>,
        change: impl FnOnce(&mut T),
    ) -> bool {
        // SAFETY: as above, and zeros are valid too. Another thread that uses the same socket
        // writes the same members.
        let stored = unsafe { self.storage(map, BPF_SK_STORAGE_GET_F_CREATE).as_mut() };
        stored.map(change).is_some()
    }

    #[inline(always)]
    fn storage<T>(&self, map: &'static SkStorage<T>, flags: u32) -> *mut T {
        let map = ptr::from_ref(map).cast_mut().cast();
        let sock = self.sock().as_ptr().cast();
        // SAFETY: the map keeps values of this type for sockets.
        unsafe { bpf_sk_storage_get(map, sock, ptr::null_mut(), flags.into()) }.cast()
    }

    /// Binds the socket to `lo`. Returns 0 or a negative errno.
    #[inline(always)]
    pub(crate) fn bind_to_loopback(&mut self) -> i64 {
        let mut index = LOOPBACK;
        // SAFETY: the helper reads the given number of bytes.
        unsafe {
            bpf_setsockopt(
                self.context.cast(),
                SOL_SOCKET,
                SO_BINDTOIFINDEX,
                (&raw mut index).cast(),
                size_of_val(&index) as i32,
            )
        }
    }

    #[inline(always)]
    pub(crate) fn address(&self) -> Address {
        match self.family {
            Family::V4 => Address::from_v4(read!(self.context, bpf_sock_addr, u32 user_ip4)),
            Family::V6 => read_v6!(self.context, bpf_sock_addr, user_ip6),
        }
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn port(&self) -> u16 {
        port_from_be32(read!(self.context, bpf_sock_addr, u32 user_port))
    }

    /// Replaces address and port. The family must be the same.
    #[inline(always)]
    pub(crate) fn set(&mut self, address: Address, port: u16) {
        let words = address.words();
        match self.family {
            Family::V4 => write!(self.context, bpf_sock_addr, user_ip4, words[3]),
            Family::V6 => {
                write!(self.context, bpf_sock_addr, user_ip6[0], words[0]);
                write!(self.context, bpf_sock_addr, user_ip6[1], words[1]);
                write!(self.context, bpf_sock_addr, user_ip6[2], words[2]);
                write!(self.context, bpf_sock_addr, user_ip6[3], words[3]);
            }
        }
        write!(
            self.context,
            bpf_sock_addr,
            user_port,
            u32::from(port.to_be())
        );
    }

    /// The source of a datagram: that of `IP_PKTINFO` or `IPV6_PKTINFO`, otherwise that of the
    /// socket; unspecified if neither is set. Only for `sendmsg`.
    #[inline(always)]
    pub(crate) fn datagram_source(&self) -> Address {
        match self.family {
            Family::V4 => Address::from_v4(read!(self.context, bpf_sock_addr, u32 msg_src_ip4)),
            Family::V6 => read_v6!(self.context, bpf_sock_addr, msg_src_ip6),
        }
    }

    /// The interface that the app selects for a datagram, or 0. Only for `sendmsg`.
    #[inline(always)]
    pub(crate) fn datagram_interface(&self) -> u32 {
        let is_v4 = matches!(self.family, Family::V4);
        // SAFETY: called in `sendmsg` only, which has a hook for each family.
        match unsafe { interface_of_datagram(self.context.cast(), is_v4) } {
            0 if is_v4 => self.socket().unicast_interface_v4(),
            0 => self.socket().unicast_interface_v6(),
            interface => interface,
        }
    }

    /// The interface that a connecting UDP socket selects, or 0.
    #[inline(always)]
    pub(crate) fn connection_interface(&self) -> u32 {
        match self.sock().bound_interface() {
            0 if self.address().is_v4() => self.socket().unicast_interface_v4(),
            0 => self.socket().unicast_interface_v6(),
            bound => bound,
        }
    }

    /// Replaces the source of a datagram. Only for `sendmsg`.
    #[inline(always)]
    pub(crate) fn set_source(&mut self, source: Address) {
        let words = source.words();
        match self.family {
            Family::V4 => write!(self.context, bpf_sock_addr, msg_src_ip4, words[3]),
            Family::V6 => {
                write!(self.context, bpf_sock_addr, msg_src_ip6[0], words[0]);
                write!(self.context, bpf_sock_addr, msg_src_ip6[1], words[1]);
                write!(self.context, bpf_sock_addr, msg_src_ip6[2], words[2]);
                write!(self.context, bpf_sock_addr, msg_src_ip6[3], words[3]);
            }
        }
    }

    /// Undoes [`Self::bind`] on a socket that has no port yet.
    #[inline(always)]
    pub(crate) fn unbind(&mut self) -> i64 {
        self.bind(match self.family {
            Family::V4 => Address::UNSPECIFIED_V4,
            Family::V6 => Address::UNSPECIFIED_V6,
        })
    }

    /// Binds the socket to `address`, without a port. Only for `connect`. Returns 0 or a negative
    /// errno.
    #[inline(always)]
    pub(crate) fn bind(&mut self, address: Address) -> i64 {
        match address.v4() {
            Some(v4) => self.bind_to(SockAddrIn {
                family: AF_INET as u16,
                port: 0,
                address: v4,
                zero: [0; 2],
            }),
            None => self.bind_to(SockAddrIn6 {
                family: AF_INET6 as u16,
                port: 0,
                flow_info: 0,
                address: address.words(),
                scope: 0,
            }),
        }
    }

    #[inline(always)]
    fn bind_to<T>(&mut self, mut name: T) -> i64 {
        // SAFETY: the helper reads the given number of bytes, which begin with the family.
        unsafe { bpf_bind(self.context, (&raw mut name).cast(), size_of::<T>() as i32) }
    }

    /// The address that the socket is bound to; unspecified if none. IPv4 for an IPv6 socket that
    /// is bound to an IPv4-mapped address.
    #[inline(always)]
    pub(crate) fn bound_address(&self) -> Address {
        match self.family {
            Family::V4 => self.sock().local_v4(),
            Family::V6 => self.sock().local_v6(),
        }
    }

    /// The scope of an IPv6 address: its own, otherwise the interface that the socket is bound to,
    /// or 0.
    #[inline(always)]
    pub(crate) fn scope(&self) -> u32 {
        // SAFETY: this is a `sock_addr` hook.
        match unsafe { scope_in_context(self.context.cast()) } {
            0 => self.sock().bound_interface(),
            scope => scope,
        }
    }

    /// Whether the socket's packets go through another address than their destination.
    #[inline(always)]
    pub(crate) fn has_source_route(&self) -> bool {
        self.socket().has_source_route(self.family)
    }

    #[inline(always)]
    pub(crate) fn sock(&self) -> Sock {
        Sock::new(read!(self.context, bpf_sock_addr, pointer __bindgen_anon_1) as *mut bpf_sock)
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> SocketPointer {
        // SAFETY: the kernel's structure, `struct bpf_sock_addr_kern`, begins with the socket.
        unsafe { SocketPointer::from_context(self.context.cast()) }
    }
}

/// A port that the kernel keeps in network byte order in the low half of a `u32`.
#[inline(always)]
const fn port_from_be32(port: u32) -> u16 {
    u16::from_be((port & 0xffff) as u16)
}
