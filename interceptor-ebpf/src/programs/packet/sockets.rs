//! Looks up the socket of a packet.

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie},
};
use interceptor_ebpf::StandIn;

use super::{
    Ip, Packet, Tcp,
    headers::{TcpHeader, V4Header, V6Header},
};
use crate::programs::{context::Sock, uapi::TCP_LISTEN};

impl Packet {
    /// Whether the pod has a socket, in any state, for the packet's connection to `local`.
    #[inline(always)]
    pub(crate) fn has_socket(&self, ip: &Ip, tcp: Tcp, local: StandIn) -> bool {
        let ports = [tcp.from.to_be(), local.port.to_be()];
        let sock = if let (Some(from), Some(to)) = (ip.from.v4(), local.address.v4()) {
            self.find_socket((from, to, ports))
        } else {
            self.find_socket((ip.from.words(), local.address.words(), ports))
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

    /// `ends` is a `struct bpf_sock_tuple`, whose size determines the family. The caller must
    /// release the socket.
    #[inline(always)]
    fn find_socket<A: Copy>(&self, ends: (A, A, [u16; 2])) -> *mut bpf_sock {
        #[repr(C)]
        struct Tuple<A>(A, A, [u16; 2]);

        let mut tuple = Tuple(ends.0, ends.1, ends.2);
        // SAFETY: the helper reads the tuple, which has the given size.
        unsafe {
            bpf_skc_lookup_tcp(
                self.context.cast(),
                (&raw mut tuple).cast(),
                size_of::<Tuple<A>>() as u32,
                BPF_F_CURRENT_NETNS as u64,
                0,
            )
        }
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
