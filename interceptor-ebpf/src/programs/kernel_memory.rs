//! Reads members of kernel structures that the contexts do not have.
//!
//! `bpf_probe_read_kernel` does not fault on a bad address: it fails, and writes zeros. So a read
//! at an unknown offset or through a null pointer returns zero, and a chain of reads is tested
//! once, at its end. (An `Option` at every step would add branches that verifiers up to 6.2 cannot
//! follow.)

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use interceptor_ebpf::{Address, NetnsCookie, Owner, UNKNOWN_OFFSET};
use zerocopy::FromBytes;

use super::uapi::{AF_INET6, Family, TCP_CLOSE, TCP_SYN_SENT};

/// One offset. Read alone: the verifier knows its value, and the others are not copied.
macro_rules! offset {
    ($member:ident) => {{
        let offsets = (&raw const $crate::programs::maps::OFFSETS)
            .cast::<::interceptor_ebpf::KernelOffsets>();
        // SAFETY: `Global` is transparent, and initialized by its declaration.
        unsafe { ::core::ptr::read_volatile(&raw const (*offsets).$member) }
    }};
}

pub(crate) use offset;

/// An address in the kernel's memory, as a plain number; 0 is null.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelPointer(u64);

impl KernelPointer {
    pub(crate) const NULL: Self = Self(0);

    /// The member at `offset`.
    #[inline(always)]
    pub(crate) const fn member(self, offset: u32) -> Self {
        if offset == UNKNOWN_OFFSET {
            Self::NULL
        } else {
            Self(self.0.wrapping_add(offset as u64))
        }
    }

    /// The structure with this member at `offset` (`container_of`).
    #[inline(always)]
    pub(crate) const fn container(self, offset: u32) -> Self {
        if offset == UNKNOWN_OFFSET {
            Self::NULL
        } else {
            Self(self.0.wrapping_sub(offset as u64))
        }
    }

    /// Reads the `T` at `offset`; zeros if it cannot be read.
    #[inline(always)]
    pub(crate) fn read<T: FromBytes>(self, offset: u32) -> T {
        let address = self.member(offset).0;
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper checks the address, and always writes the whole value.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                address as *const c_void,
            );
            value.assume_init()
        }
    }

    /// Reads the pointer at `offset`.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Self {
        Self(self.read(offset))
    }

    #[inline(always)]
    pub(crate) const fn is_null(self) -> bool {
        self.0 == 0
    }
}

/// Reads the pointer at `index` in a context, as in an array of pointers.
///
/// # Safety
///
/// The kernel's structure of the context must have a pointer there.
#[inline(always)]
unsafe fn pointer_in_context(context: *const c_void, index: usize) -> KernelPointer {
    let mut pointer = MaybeUninit::<u64>::uninit();
    // SAFETY: the helper checks the address, and always writes the whole value.
    unsafe {
        bpf_probe_read_kernel(
            pointer.as_mut_ptr().cast(),
            size_of::<u64>() as u32,
            context.cast::<u64>().add(index).cast(),
        );
        KernelPointer(pointer.assume_init())
    }
}

/// A `struct sock *`.
#[derive(Clone, Copy)]
pub(crate) struct SocketPointer(KernelPointer);

impl SocketPointer {
    /// Reads the pointer from the kernel's structure of a context. (`ctx.sk` would be the same, but
    /// the verifier forbids arithmetic on it.)
    ///
    /// # Safety
    ///
    /// The first member of the kernel's structure of the context must be the `struct sock *`.
    #[inline(always)]
    pub(crate) unsafe fn from_context(context: *const c_void) -> Self {
        // SAFETY: required of the caller.
        Self(unsafe { pointer_in_context(context, 0) })
    }

    /// The address of a socket that the verifier knows as such, without arithmetic on the pointer.
    #[inline(always)]
    pub(crate) fn of(sock: *const c_void) -> Self {
        Self(KernelPointer((&raw const sock) as u64).follow(0))
    }

    #[inline(always)]
    pub(crate) fn netns(self) -> NetnsCookie {
        NetPointer(self.0.follow(offset!(sock_net))).cookie()
    }

    /// The socket's owner, as `owner_mt` in `net/netfilter/xt_owner.c` finds it: through the file,
    /// so a socket without a file has no owner.
    #[inline(always)]
    pub(crate) fn owner(self) -> Owner {
        let credentials = self
            .0
            .follow(offset!(sock_socket))
            .follow(offset!(socket_file))
            .follow(offset!(file_cred));
        if credentials.is_null() {
            return Owner::NONE;
        }
        let (uid, gid) = (offset!(cred_fsuid), offset!(cred_fsgid));
        // Adjacent, unless the kernel is built with randomized structures.
        if gid == uid + size_of::<u32>() as u32 {
            let [uid, gid] = credentials.read(uid);
            return Owner { uid, gid };
        }
        Owner {
            uid: credentials.read(uid),
            gid: credentials.read(gid),
        }
    }

    /// The local port in host byte order, which `inet_sport` keeps after a reset has released the
    /// port.
    #[inline(always)]
    pub(crate) fn lasting_local_port(self) -> u16 {
        u16::from_be(self.0.read(offset!(inet_sport)))
    }

    /// Whether the socket was accepted, not connected: `tcp_v4_syn_recv_sock` and
    /// `tcp_v6_syn_recv_sock` store the incoming interface of the handshake, where a connecting
    /// socket has 0 (or the value of `IP_MULTICAST_IF`, which is not used on TCP sockets).
    #[inline(always)]
    pub(crate) fn is_accepted(self, family: u32) -> bool {
        let interface: u32 = if family == AF_INET6 {
            let v6 = self.0.follow(offset!(inet_pinet6));
            v6.read(offset!(pinet6_mcast_oif))
        } else {
            self.0.read(offset!(inet_mc_index))
        };
        interface != 0
    }

    /// Whether the packets of a socket go through an address that its owner has set: a routing
    /// header (`inet6_csk_route_socket`, `fl6_update_dst`), or a source route (`__ip_queue_xmit`),
    /// which IPv6 sockets with IPv4-mapped addresses have too.
    #[inline(always)]
    pub(crate) fn has_source_route(self, family: Family) -> bool {
        let v4 = self.0.follow(offset!(inet_options));
        let v4: u8 = v4.read(offset!(options_source_route));
        if let Family::V4 = family {
            return v4 != 0;
        }
        let v6 = self.0.follow(offset!(inet_pinet6));
        let v6 = v6.follow(offset!(pinet6_options));
        let v6 = v6.follow(offset!(options6_routing_header));
        v4 != 0 || !v6.is_null()
    }

    /// The outgoing interface that the socket selects for IPv4 (`IP_UNICAST_IF`), or 0.
    #[inline(always)]
    pub(crate) fn unicast_interface_v4(self) -> u32 {
        self.0.read(offset!(inet_uc_index))
    }

    /// The same for IPv6: `IPV6_PKTINFO` as a socket option, which has precedence, or
    /// `IPV6_UNICAST_IF` (`ip6_datagram_flow_key_init`).
    #[inline(always)]
    pub(crate) fn unicast_interface_v6(self) -> u32 {
        let v6 = self.0.follow(offset!(inet_pinet6));
        match v6.read(offset!(pinet6_sticky_interface)) {
            0 => v6.read(offset!(pinet6_ucast_oif)),
            sticky => sticky,
        }
    }

    /// Whether the socket was bound to a port with `SO_REUSEPORT`: another socket may receive its
    /// datagrams.
    #[inline(always)]
    pub(crate) fn shares_port(self) -> bool {
        !self.0.follow(offset!(sock_reuseport_group)).is_null()
    }

    /// Whether conntrack would have no entry for a connecting TCP socket: its SYN is not sent yet
    /// (`TCP_FASTOPEN_CONNECT` waits for data), or the reply was a reset, which deletes the entry.
    #[inline(always)]
    pub(crate) fn is_untracked(self, state: u32) -> bool {
        match state {
            TCP_SYN_SENT => {
                let packets_out: u32 = self.0.read(offset!(tcp_packets_out));
                packets_out == 0
            }
            TCP_CLOSE => {
                let expected_next: u32 = self.0.read(offset!(tcp_rcv_nxt));
                expected_next == 0
            }
            _ => false,
        }
    }
}

/// The `sin6_scope_id` that the caller of `connect` passed: that of the address at the second
/// pointer of the context.
///
/// # Safety
///
/// The context must be that of a `sock_addr` hook.
#[inline(always)]
pub(crate) unsafe fn scope_in_context(context: *const c_void) -> u32 {
    const SIN6_SCOPE_ID: u32 = 24;
    // SAFETY: `struct bpf_sock_addr_kern` begins with the socket and the address.
    unsafe { pointer_in_context(context, 1) }.read(SIN6_SCOPE_ID)
}

/// The outgoing interface of a datagram, or 0: that of `IP_PKTINFO` or `IPV6_PKTINFO`, or the one
/// that the socket is bound to. The kernel applies `IP_UNICAST_IF` and `IPV6_UNICAST_IF` later.
///
/// # Safety
///
/// The context must be that of a `sendmsg` hook, of IPv4 if `is_v4`.
#[inline(always)]
pub(crate) unsafe fn interface_of_datagram(context: *const c_void, is_v4: bool) -> u32 {
    // SAFETY: the fourth pointer of `struct bpf_sock_addr_kern`, `t_ctx`, points to the source
    // address in `udp_sendmsg`'s `struct ipcm_cookie`, or in `udpv6_sendmsg`'s `struct flowi6`.
    let source = unsafe { pointer_in_context(context, 3) };
    if is_v4 {
        let datagram = source.container(offset!(datagram_v4_source));
        datagram.read(offset!(datagram_v4_interface))
    } else {
        let datagram = source.container(offset!(datagram_v6_source));
        datagram.read(offset!(datagram_v6_interface))
    }
}

/// A `struct sock_common *` in an iteration of `iter/tcp`.
#[derive(Clone, Copy)]
pub(crate) struct IteratedSocket(KernelPointer);

impl IteratedSocket {
    /// Reads the second member of `struct bpf_iter__tcp`. At the end of the iteration it is null,
    /// and all its members read as zero.
    ///
    /// # Safety
    ///
    /// `context` must be the context of an `iter/tcp` program.
    #[inline(always)]
    pub(crate) unsafe fn from_context(context: *const c_void) -> Self {
        // SAFETY: required of the caller.
        Self(unsafe { pointer_in_context(context, 1) })
    }

    #[inline(always)]
    pub(crate) fn netns(self) -> NetnsCookie {
        NetPointer(self.0.follow(offset!(sock_net))).cookie()
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        self.0.read(offset!(sock_state))
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        self.0.read(offset!(sock_num))
    }

    #[inline(always)]
    pub(crate) fn local_address(self) -> Address {
        let family: u16 = self.0.read(offset!(sock_family));
        if u32::from(family) == AF_INET6 {
            Address::from_words(self.0.read(offset!(sock_v6_rcv_saddr)))
        } else {
            Address::from_v4(self.0.read(offset!(sock_rcv_saddr)))
        }
    }
}

/// A `struct net *`.
#[derive(Clone, Copy)]
pub(crate) struct NetPointer(KernelPointer);

impl NetPointer {
    /// The network namespace at this address.
    #[inline(always)]
    pub(crate) const fn new(address: u64) -> Self {
        Self(KernelPointer(address))
    }

    /// The network namespace of `task`, a `struct task_struct *`.
    #[inline(always)]
    pub(crate) fn of_task(task: u64) -> Self {
        Self(
            KernelPointer(task)
                .follow(offset!(task_nsproxy))
                .follow(offset!(nsproxy_net)),
        )
    }

    /// The network namespace of a packet's device.
    ///
    /// # Safety
    ///
    /// `packet` must be the context of a packet hook.
    #[inline(always)]
    pub(crate) unsafe fn of_packet(packet: *const c_void) -> Self {
        // The kernel's structure of the context is the `struct sk_buff`. An address that the helper
        // has read is a plain number, to which an offset may be added; the context itself is not.
        let packet = KernelPointer((&raw const packet) as u64).follow(0);
        let device = packet.follow(offset!(packet_device));
        Self(device.follow(offset!(device_net)))
    }

    /// 0, which no namespace has, if the cookie cannot be read.
    #[inline(always)]
    pub(crate) fn cookie(self) -> NetnsCookie {
        self.0.read(offset!(net_cookie))
    }

    #[inline(always)]
    pub(crate) const fn address(self) -> u64 {
        self.0.0
    }

    /// The head of the list of its devices.
    #[inline(always)]
    pub(crate) fn devices(self) -> KernelPointer {
        self.0.member(offset!(net_devices))
    }

    /// See [`interceptor_ebpf::FibGeneration`], also for the next two.
    #[inline(always)]
    pub(crate) fn rt_genid(self) -> u32 {
        self.0.read(offset!(net_rt_genid))
    }

    #[inline(always)]
    pub(crate) fn fib6_sernum(self) -> u32 {
        self.0.read(offset!(net_fib6_sernum))
    }

    #[inline(always)]
    pub(crate) fn rt6_entries(self) -> u32 {
        self.0
            .follow(offset!(net_rt6_stats))
            .read(offset!(rt6_entries))
    }
}
