//! The socket that has sent a packet, and the one that will receive it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock},
    helpers::generated::{
        bpf_sk_fullsock, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
        bpf_tcp_check_syncookie,
    },
};
use interceptor_ebpf::{Owner, StandIn};

use super::{
    Ip, Packet, Tcp,
    headers::{TcpHeader, V4Header, V6Header},
};
use crate::programs::{
    context::{Sock, read},
    kernel_memory::SocketPointer,
    uapi::TCP_LISTEN,
};

/// A network namespace, as the ID that the one of the packet's interface has for it.
#[derive(Clone, Copy)]
pub(crate) struct NetnsId(u64);

impl NetnsId {
    /// The network namespace of the packet's interface.
    pub(crate) const CURRENT: Self = Self(BPF_F_CURRENT_NETNS as u64);

    /// That of the interface itself if the number is negative.
    #[inline(always)]
    pub(crate) const fn new(id: i32) -> Self {
        if id < 0 {
            Self::CURRENT
        } else {
            Self(id as u64)
        }
    }
}

/// The two addresses and the ports of a connection or datagram, as `struct bpf_sock_tuple`. The
/// size determines the family.
#[repr(C)]
struct Tuple<A>(A, A, [u16; 2]);

impl Packet {
    /// The socket that has sent the packet, on this machine and not through a socket of another
    /// packet's lookup. `None` for a packet that was forwarded, or sent by the kernel itself.
    #[inline(always)]
    pub(crate) fn sender(&self) -> Option<Sender> {
        let sock = read!(self.context, __sk_buff, pointer __bindgen_anon_2.sk) as *mut bpf_sock;
        (!sock.is_null()).then_some(Sender(sock))
    }

    /// Whether the pod has a socket, in any state, for the packet's connection to `local`.
    #[inline(always)]
    pub(crate) fn has_socket(&self, netns: NetnsId, ip: &Ip, tcp: Tcp, local: StandIn) -> bool {
        let ports = [tcp.from.to_be(), local.port.to_be()];
        let sock = if let (Some(from), Some(to)) = (ip.from.v4(), local.address.v4()) {
            self.find_tcp(netns, Tuple(from, to, ports))
        } else {
            let (from, to) = (ip.from.words(), local.address.words());
            self.find_tcp(netns, Tuple(from, to, ports))
        };
        if sock.is_null() {
            return false;
        }
        let is_listener = Sock::new(sock).state() == TCP_LISTEN;
        let has_socket = !is_listener || self.has_syn_cookie(sock, ip, local);
        // SAFETY: the lookup holds a reference to the socket, which is released once.
        unsafe { bpf_sk_release(sock.cast()) };
        has_socket
    }

    /// The caller must release the socket.
    #[inline(always)]
    fn find_tcp<A>(&self, netns: NetnsId, mut tuple: Tuple<A>) -> *mut bpf_sock {
        // SAFETY: the helper reads the tuple, which has the given size.
        unsafe {
            bpf_skc_lookup_tcp(
                self.context.cast(),
                (&raw mut tuple).cast(),
                size_of::<Tuple<A>>() as u32,
                netns.0,
                0,
            )
        }
    }

    /// The owner of the UDP socket that receives the datagram, if there is one.
    #[inline(always)]
    pub(crate) fn udp_receiver(&self, netns: NetnsId, ip: &Ip, [from, to]: [u16; 2]) -> Owner {
        let ports = [from.to_be(), to.to_be()];
        if let (Some(from), Some(to)) = (ip.from.v4(), ip.to.v4()) {
            self.udp_owner(netns, Tuple(from, to, ports))
        } else {
            self.udp_owner(netns, Tuple(ip.from.words(), ip.to.words(), ports))
        }
    }

    #[inline(always)]
    fn udp_owner<A>(&self, netns: NetnsId, mut tuple: Tuple<A>) -> Owner {
        // SAFETY: the helper reads the tuple, which has the given size.
        let sock = unsafe {
            bpf_sk_lookup_udp(
                self.context.cast(),
                (&raw mut tuple).cast(),
                size_of::<Tuple<A>>() as u32,
                netns.0,
                0,
            )
        };
        if sock.is_null() {
            return Owner::NONE;
        }
        let owner = SocketPointer::of(sock.cast()).owner();
        // SAFETY: the lookup holds a reference to the socket, which is released once.
        unsafe { bpf_sk_release(sock.cast()) };
        owner
    }

    /// Whether the packet has a valid SYN cookie: it completes a handshake for which the listener
    /// keeps no state.
    #[inline(always)]
    fn has_syn_cookie(&self, listener: *mut bpf_sock, ip: &Ip, local: StandIn) -> bool {
        let Some(mut tcp) = self.load::<TcpHeader>(ip.transport) else {
            return false;
        };
        tcp.destination = local.port.to_be();
        if let Some(to) = local.address.v4() {
            self.load::<V4Header>(0).is_some_and(|mut header| {
                header.destination = to;
                is_syn_cookie(listener, &mut header, &mut tcp)
            })
        } else {
            self.load::<V6Header>(0).is_some_and(|mut header| {
                header.destination = local.address.words();
                is_syn_cookie(listener, &mut header, &mut tcp)
            })
        }
    }
}

#[inline(always)]
fn is_syn_cookie<H>(listener: *mut bpf_sock, ip: &mut H, tcp: &mut TcpHeader) -> bool {
    let (ip, tcp): (*mut H, *mut TcpHeader) = (ip, tcp);
    let (ip_size, tcp_size) = (size_of::<H>() as u32, size_of::<TcpHeader>() as u32);
    // SAFETY: the caller holds the listener; both headers have the given size.
    unsafe {
        bpf_tcp_check_syncookie(listener.cast(), ip.cast(), ip_size, tcp.cast(), tcp_size) == 0
    }
}

/// The socket that has sent a packet: of any kind, perhaps a request or one in TIME-WAIT
/// (`struct sock_common`).
#[derive(Clone, Copy)]
pub(crate) struct Sender(*mut bpf_sock);

impl Sender {
    /// The members that all sockets have.
    #[inline(always)]
    pub(crate) const fn common(self) -> Sock {
        Sock::new(self.0)
    }

    #[inline(always)]
    pub(crate) fn pointer(self) -> SocketPointer {
        SocketPointer::of(self.0.cast())
    }

    /// The socket, unless it is a request or in TIME-WAIT.
    #[inline(always)]
    pub(crate) fn full(self) -> Option<Sock> {
        // SAFETY: the packet holds a reference to the socket.
        let sock = unsafe { bpf_sk_fullsock(self.0) };
        (!sock.is_null()).then_some(Sock::new(sock))
    }
}
