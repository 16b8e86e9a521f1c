//! Safe views of the contexts that the kernel calls the hooks with.
//!
//! The verifier wants each access to a context at a constant offset from it, and of the member's
//! own size. The compiler does not know: it made one 64-bit store of `optlen` and `retval`, and one
//! load of two in different branches, at an address of its own making. So the accesses are written
//! out, one instruction each.

use core::{
    arch::asm,
    ffi::{c_int, c_void},
    mem::offset_of,
    ptr,
};

use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, bpf_sk_lookup, bpf_sock, bpf_sock_addr, bpf_sock_ops,
        bpf_sockopt,
    },
    btf_maps::SkStorage,
    helpers::{
        bpf_bind, bpf_get_netns_cookie, bpf_get_retval, bpf_get_socket_cookie, bpf_set_retval,
        bpf_setsockopt, generated::bpf_sk_storage_get,
    },
};
use interceptor_ebpf::{Address, NetnsCookie};
use zerocopy::FromBytes;

use super::kernel_memory::{
    IteratedSocket, SocketPointer, interface_of_datagram, scope_in_context,
};

pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const IPPROTO_UDP: u32 = 17;
pub(crate) const IPPROTO_MPTCP: u32 = 262;

pub(crate) const ENODEV: u32 = 19;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENETUNREACH: u32 = 101;
pub(crate) const ECONNREFUSED: u32 = 111;

/// The index of `lo`, in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Reads a member of a context, or of what a context points to: `read!(sk: bpf_sock, u32 family)`,
/// for an array `src_ip6[3]`.
macro_rules! read {
    (@load $context:expr, $offset:expr, $load:literal) => {{
        let value: u64;
        // SAFETY: the kernel hands out a valid context; the verifier checks that this program type
        // may read this member at this size.
        unsafe {
            asm!(
                concat!("{value} = *(", $load, " *)({context} + {offset})"),
                value = out(reg) value,
                context = in(reg) $context,
                offset = const $offset,
                options(nostack),
            );
        }
        value
    }};
    ($context:expr, $type:ident, u16 $member:ident) => {
        read!(@load $context, offset_of!($type, $member), "u16") as u16
    };
    ($context:expr, $type:ident, u32 $member:ident) => {
        read!(@load $context, offset_of!($type, $member), "u32") as u32
    };
    ($context:expr, $type:ident, u32 $member:ident[$index:literal]) => {
        read!(@load $context, offset_of!($type, $member) + 4 * $index, "u32") as u32
    };
    ($context:expr, $type:ident, pointer $member:ident) => {
        read!(@load $context, offset_of!($type, $member), "u64")
    };
}

pub(super) use read;

/// Writes a member of a context: `write!(context, bpf_sock_addr, user_port, value)`.
macro_rules! write {
    ($context:expr, $type:ident, $member:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: as for reading; this program type may write this member at this size.
        unsafe {
            asm!(
                "*(u32 *)({context} + {offset}) = {value}",
                value = in(reg) u64::from($value as u32),
                context = in(reg) $context,
                offset = const offset_of!($type, $member) $(+ 4 * $index)?,
                options(nostack),
            );
        }
    };
}

/// Reads an IPv6 address word by word: the verifier takes no wider access.
macro_rules! read_v6 {
    ($context:expr, $type:ident, $member:ident) => {
        Address::from_words([
            read!($context, $type, u32 $member[0]),
            read!($context, $type, u32 $member[1]),
            read!($context, $type, u32 $member[2]),
            read!($context, $type, u32 $member[3]),
        ])
    };
}

/// A port that the kernel keeps in network byte order in the low half of a `u32`.
#[inline(always)]
const fn port_from_be32(port: u32) -> u16 {
    u16::from_be((port & 0xffff) as u16)
}

/// What a hook that the kernel asks for permission answers.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum Answer {
    /// Go on, with whatever the hook changed.
    Proceed = 1,
    /// Fail with the errno that [`refuse`] has set.
    Refuse = 0,
}

/// Fails the system call with `errno`. Programs that run after this one, in an outer cgroup, find
/// the call already refused.
#[inline(always)]
pub(crate) fn refuse(errno: u32) -> Answer {
    set_return_value(errno);
    Answer::Refuse
}

/// Makes the system call return `-errno`, or succeed if it is 0.
#[inline(always)]
pub(crate) fn set_return_value(errno: u32) {
    // SAFETY: the helper only takes a number.
    unsafe { bpf_set_retval(-(errno as c_int)) };
}

/// Whether a program that ran before this one, in an inner cgroup, has refused the system call.
#[inline(always)]
pub(crate) fn is_refused() -> bool {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_retval() != 0 }
}

/// The cookie of the network namespace that the context's socket belongs to.
#[inline(always)]
fn netns_of(context: *mut c_void) -> NetnsCookie {
    // SAFETY: called with the context of a hook that has this helper.
    unsafe { bpf_get_netns_cookie(context) }
}

/// Which half of the family-specific members a `sock_addr` hook uses.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

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

    /// The socket's cookie, which no other ever has.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: sock_addr has this helper.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// The socket's protocol. (An MPTCP socket gets here with its TCP subflow.)
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u32 {
        read!(self.context, bpf_sock_addr, u32 protocol)
    }

    /// What `map` keeps for the socket, if it keeps anything.
    #[inline(always)]
    pub(crate) fn kept<T>(&self, map: &'static SkStorage<T>) -> Option<&'static T> {
        // SAFETY: what is kept is valid, and lasts as long as the socket.
        unsafe { self.ask_storage(map, 0).as_ref() }
    }

    /// Changes what `map` keeps for the socket: zeros, if it kept nothing. False if there is no
    /// memory.
    #[inline(always)]
    pub(crate) fn keep<T: FromBytes>(
        &self,
        map: &'static SkStorage<T>,
        change: impl FnOnce(&mut T),
    ) -> bool {
        // SAFETY: as above, and zeros are valid too. Another thread that uses the same socket writes
        // the same members.
        let kept = unsafe { self.ask_storage(map, BPF_SK_STORAGE_GET_F_CREATE).as_mut() };
        kept.map(change).is_some()
    }

    #[inline(always)]
    fn ask_storage<T>(&self, map: &'static SkStorage<T>, flags: u32) -> *mut T {
        let map = ptr::from_ref(map).cast_mut().cast();
        let sock = self.sock().0.cast();
        // SAFETY: the map keeps values of this type for sockets.
        unsafe { bpf_sk_storage_get(map, sock, ptr::null_mut(), flags.into()) }.cast()
    }

    /// Has the socket send and receive by `lo` only. Answers 0 or a negative errno.
    #[inline(always)]
    pub(crate) fn bind_to_loopback(&mut self) -> i64 {
        const SOL_SOCKET: i32 = 1;
        const SO_BINDTOIFINDEX: i32 = 62;

        let mut index = LOOPBACK;
        // SAFETY: the helper reads as many bytes as it is told.
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

    /// Puts another address of the same family in place.
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

    /// Where a datagram comes from: what `IP_PKTINFO` or `IPV6_PKTINFO` says, else what the socket is
    /// bound to; unspecified if neither says. Only for `sendmsg`.
    #[inline(always)]
    pub(crate) fn datagram_source(&self) -> Address {
        match self.family {
            Family::V4 => Address::from_v4(read!(self.context, bpf_sock_addr, u32 msg_src_ip4)),
            Family::V6 => read_v6!(self.context, bpf_sock_addr, msg_src_ip6),
        }
    }

    /// The interface that the app names for a datagram, or 0. Only for `sendmsg`.
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

    /// The interface that a UDP socket names for the connection that it makes, or 0.
    #[inline(always)]
    pub(crate) fn connection_interface(&self) -> u32 {
        match self.sock().bound_interface() {
            0 if self.address().is_v4() => self.socket().unicast_interface_v4(),
            0 => self.socket().unicast_interface_v6(),
            bound => bound,
        }
    }

    /// Has a datagram come from `source`. Only for `sendmsg`.
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

    /// Undoes [`SockAddr::bind`] on a socket that has no port yet.
    #[inline(always)]
    pub(crate) fn unbind(&mut self) -> i64 {
        self.bind(match self.family {
            Family::V4 => Address::UNSPECIFIED_V4,
            Family::V6 => Address::UNSPECIFIED_V6,
        })
    }

    /// Binds the socket to `address`, without a port yet. Only for `connect`. Answers 0 or a
    /// negative errno.
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
        // SAFETY: the helper reads as many bytes as it is told, and knows the family from them.
        unsafe { bpf_bind(self.context, (&raw mut name).cast(), size_of::<T>() as i32) }
    }

    /// What the socket is bound to; unspecified if it is not. An IPv6 socket bound to an
    /// IPv4-mapped address is bound to the IPv4 one.
    #[inline(always)]
    pub(crate) fn bound_address(&self) -> Address {
        match self.family {
            Family::V4 => self.sock().local_v4(),
            Family::V6 => self.sock().local_v6(),
        }
    }

    /// The interface that an IPv6 address is meant on, by the address itself or by the socket; 0 if
    /// neither says.
    #[inline(always)]
    pub(crate) fn scope(&self) -> u32 {
        // SAFETY: this is a `sock_addr` hook.
        match unsafe { scope_in_context(self.context.cast()) } {
            0 => self.sock().bound_interface(),
            scope => scope,
        }
    }

    /// Whether the socket's packets go by way of another address than that of their destination.
    #[inline(always)]
    pub(crate) fn has_source_route(&self) -> bool {
        self.socket().has_source_route(self.family)
    }

    #[inline(always)]
    pub(crate) fn sock(&self) -> Sock {
        Sock(read!(self.context, bpf_sock_addr, pointer __bindgen_anon_1) as *mut bpf_sock)
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> SocketPointer {
        // SAFETY: `struct bpf_sock_addr_kern`, which the context really is, begins with the socket.
        unsafe { SocketPointer::from_context(self.context.cast()) }
    }
}

/// `struct bpf_sock`: a full socket.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*mut bpf_sock);

impl Sock {
    /// Takes a socket that a map of sockets has handed out.
    #[inline(always)]
    pub(crate) const fn new(sock: *mut bpf_sock) -> Self {
        Self(sock)
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
    fn local_v4(self) -> Address {
        Address::from_v4(read!(self.0, bpf_sock, u32 src_ip4))
    }

    #[inline(always)]
    fn local_v6(self) -> Address {
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

    /// In host byte order; 0 after a reset, which gives the port back.
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

/// `struct bpf_sockopt`: a `getsockopt` call that the kernel has already answered, or a `setsockopt`
/// call that it has not looked at yet.
pub(crate) struct SockOption {
    context: *mut bpf_sockopt,
}

impl SockOption {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sockopt) -> Self {
        Self { context }
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        netns_of(self.context.cast())
    }

    #[inline(always)]
    pub(crate) fn level(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 level) as i32
    }

    #[inline(always)]
    pub(crate) fn name(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 optname) as i32
    }

    /// The kernel's own answer: 0 or a negative errno.
    #[inline(always)]
    pub(crate) fn kernels_answer(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 retval) as i32
    }

    #[inline(always)]
    pub(crate) fn sock(&self) -> Sock {
        Sock(read!(self.context, bpf_sockopt, pointer __bindgen_anon_1) as *mut bpf_sock)
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> SocketPointer {
        // SAFETY: `struct bpf_sockopt_kern`, which the context really is, begins with the socket.
        unsafe { SocketPointer::from_context(self.context.cast()) }
    }

    /// How many bytes the value has.
    #[inline(always)]
    pub(crate) fn length(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 optlen) as i32
    }

    /// One byte of the value, if it is that long and the program is shown it.
    #[inline(always)]
    pub(crate) fn byte(&self, index: usize) -> Option<u8> {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut u8;
        // SAFETY: a few bytes past the start; only compared before it is read.
        let byte = unsafe { self.start().cast::<u8>().add(index) };
        // SAFETY: one past it; only compared.
        if unsafe { byte.add(1) } > end {
            return None;
        }
        // SAFETY: the comparison above, which the verifier has seen, makes sure that it is there.
        Some(unsafe { byte.read() })
    }

    /// Leaves a value alone that is longer than the page of it which programs are shown: the kernel
    /// fails the call with EFAULT if a program says nothing about its length (`getsockopt` up to 6.4).
    #[inline(always)]
    pub(crate) fn leave_long_value_alone(&mut self) {
        self.limit_length(0);
    }

    /// Whether the caller's buffer holds a `T`.
    #[inline(always)]
    pub(crate) fn has_room_for<T>(&self) -> bool {
        self.shown() >= size_of::<T>() as i64
    }

    /// Makes `answer` the call's result, and the call a success. The length stays what the caller
    /// gave, as it does in `getorigdst` (`net/netfilter/nf_conntrack_proto.c`).
    #[inline(always)]
    pub(crate) fn answer<T: Copy>(&mut self, answer: T) {
        let start = self.start();
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        // SAFETY: one past the answer is at most 28 bytes past the start; it is only compared.
        let answer_end = unsafe { start.cast::<u8>().add(size_of::<T>()) };
        if answer_end.cast() > end {
            return;
        }
        // SAFETY: the comparison above, which the verifier has seen, makes room for a `T`.
        unsafe { start.cast::<T>().write_unaligned(answer) };
        self.limit_length(size_of::<T>() as i32);
        set_return_value(0);
    }

    /// Replaces a length that goes past what the program is shown.
    #[inline(always)]
    fn limit_length(&mut self, length: i32) {
        if i64::from(self.length()) > self.shown() {
            write!(self.context, bpf_sockopt, optlen, length);
        }
    }

    #[inline(always)]
    fn start(&self) -> *mut c_void {
        read!(self.context, bpf_sockopt, pointer __bindgen_anon_2) as *mut c_void
    }

    /// How many bytes of the caller's buffer the program is shown.
    #[inline(always)]
    fn shown(&self) -> i64 {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        end as i64 - self.start() as i64
    }
}

/// `struct bpf_sock_ops`: something that happened to a TCP socket.
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
        // The kernel has the port in network byte order in the half that comes last in memory.
        u32::from_be(read!(self.context, bpf_sock_ops, u32 remote_port)) as u16
    }
}

/// `struct bpf_sk_lookup`: a packet that is looking for its listening socket.
pub(crate) struct SkLookup {
    context: *mut bpf_sk_lookup,
}

impl SkLookup {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sk_lookup) -> Self {
        Self { context }
    }

    /// The interface that the packet came in by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        read!(self.context, bpf_sk_lookup, u32 ingress_ifindex)
    }

    /// Where the context lies, counted from `other`. (The verifier takes the difference of two
    /// pointers for a plain number, but only if it is this very instruction.)
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

/// `struct bpf_iter__tcp`: a TCP socket that an iteration has come to.
pub(crate) struct IteratedTcp {
    context: *mut bpf_iter__tcp,
}

/// The head of the kernel's structure; aya's bindings have none of the iterators'.
#[repr(C)]
pub(crate) struct bpf_iter__tcp {
    meta: *mut c_void,
    sk_common: *mut c_void,
}

impl IteratedTcp {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_iter__tcp) -> Self {
        Self { context }
    }

    /// The `struct sock_common *`, which only as such may go into a map of sockets. Null at the end
    /// of the iteration.
    #[inline(always)]
    pub(crate) fn pointer(&self) -> *const c_void {
        read!(self.context, bpf_iter__tcp, pointer sk_common) as *const c_void
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> IteratedSocket {
        // SAFETY: the second member of the context is the socket.
        unsafe { IteratedSocket::from_context(self.context.cast()) }
    }
}

/// `struct sockaddr_in`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SockAddrIn {
    pub(crate) family: u16,
    pub(crate) port: u16,
    pub(crate) address: u32,
    pub(crate) zero: [u32; 2],
}

/// `struct sockaddr_in6`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SockAddrIn6 {
    pub(crate) family: u16,
    pub(crate) port: u16,
    pub(crate) flow_info: u32,
    pub(crate) address: [u32; 4],
    pub(crate) scope: u32,
}
