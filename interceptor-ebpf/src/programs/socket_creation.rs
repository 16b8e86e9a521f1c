//! `socket(2)`: refuses sockets that the programs cannot handle.
//!
//! - The proxy's MPTCP sockets: a map of sockets cannot hold MPTCP listeners.
//! - Raw IP sockets that send TCP: iptables would redirect their packets, which no hook here sees.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use super::{
    context::{HookResult, NewSocket, current_owner, refuse},
    pod::Pod,
    uapi::{AF_INET6, EPERM, EPROTONOSUPPORT, IPPROTO_MPTCP, IPPROTO_RAW, IPPROTO_TCP, SOCK_RAW},
};

#[cgroup_sock(sock_create)]
pub(crate) fn icept_create(context: SockContext) -> i32 {
    create(NewSocket::new(context.sock)) as i32
}

#[inline(always)]
fn create(socket: NewSocket) -> HookResult {
    let is_mptcp = socket.protocol() == IPPROTO_MPTCP;
    if !is_mptcp && socket.kind() != SOCK_RAW {
        return HookResult::Proceed;
    }
    let Some(pod) = Pod::of(socket.netns()) else {
        return HookResult::Proceed;
    };
    match (is_mptcp, pod.policy.is_proxy(current_owner())) {
        // As a kernel without MPTCP does: its users (Go, by default) fall back to TCP. Apps may use
        // MPTCP: the kernel accepts an MPTCP client on a TCP listener as TCP.
        (true, true) => refuse(EPROTONOSUPPORT),
        // As without CAP_NET_RAW. The proxy's packets pass, as with iptables.
        (false, false) if sends_tcp(&socket) => refuse(EPERM),
        _ => HookResult::Proceed,
    }
}

/// Whether the packets of a raw socket may have a TCP header: as their only header, after IPv6's
/// extension headers, or after the app's own IP header (`IPPROTO_RAW`; `programs/socket_options.rs`
/// refuses the option that has the same effect).
#[inline(always)]
fn sends_tcp(socket: &NewSocket) -> bool {
    match socket.protocol() {
        IPPROTO_TCP | IPPROTO_RAW => true,
        // Hop-by-hop options, routing, fragment, AH, destination options, mobility: the headers that
        // `ipv6_find_hdr` skips.
        0 | 43 | 44 | 51 | 60 | 135 => socket.family() == AF_INET6,
        _ => false,
    }
}
