//! `getsockopt(SO_ORIGINAL_DST)`: answered as `nf_conntrack` answers it behind the REDIRECT rules.

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use interceptor_ebpf::{Address, StandIn, StandInRange};

use super::{
    context::{AF_INET, AF_INET6, Answer, IPPROTO_TCP, Sock, SockOption, set_return_value},
    kernel_memory::SocketPointer,
    pod::Pod,
    stand_ins,
};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` are the same number.
const SO_ORIGINAL_DST: i32 = 80;

const ENOENT: u32 = 2;
const EINVAL: u32 = 22;

#[cgroup_sockopt(getsockopt)]
pub(crate) fn icept_origdst(context: SockoptContext) -> i32 {
    getsockopt(SockOption::new(context.sockopt)) as i32
}

#[inline(always)]
fn getsockopt(mut call: SockOption) -> Answer {
    let level = call.level();
    if call.name() == SO_ORIGINAL_DST && (level == SOL_IP || level == SOL_IPV6) {
        original_destination(&mut call, level);
    } else {
        call.leave_long_answer_alone();
    }
    Answer::Proceed
}

#[inline(always)]
fn original_destination(call: &mut SockOption, level: i32) {
    let Some(pod) = Pod::of(call.netns()) else {
        return;
    };
    let sock = call.sock();
    // The kernel's own errors stand: ENOPROTOOPT for other protocols and for an IPv6 question to
    // an IPv4 socket, EOPNOTSUPP for MPTCP.
    if sock.protocol() != IPPROTO_TCP || (level == SOL_IPV6 && sock.family() != AF_INET6) {
        return;
    }
    let kernel_has_answered = call.has_succeeded();
    match find(pod, sock, call.socket(), kernel_has_answered) {
        Found::Destination(address, port) => answer(call, level, address, port),
        Found::Nothing => set_return_value(ENOENT),
        Found::KernelKnows => {}
    }
}

enum Found {
    Destination(Address, u16),
    Nothing,
    /// A pod that has rules of its own, or still has Istio's: conntrack's answer stands.
    KernelKnows,
}

/// Our stand-in first, then the kernel's own answer, then what the socket itself knows.
#[inline(always)]
fn find(pod: Pod, sock: Sock, socket: SocketPointer, kernel_has_answered: bool) -> Found {
    let local = local_name(sock, socket);
    let remote = StandIn {
        address: sock.remote_address(),
        port: sock.remote_port(),
    };
    for end in [local, remote] {
        if StandInRange::contains(end.address) {
            return match stand_ins::resolve(pod.netns, end) {
                Some(destination) => Found::Destination(destination.address, destination.port),
                None => Found::Nothing,
            };
        }
    }
    if kernel_has_answered {
        return Found::KernelKnows;
    }
    // Never connected, or listening. (A reset leaves the peer's port in place.)
    if remote.port == 0 {
        return Found::Nothing;
    }
    let end = if socket.is_accepted(sock.family()) {
        local
    } else {
        remote
    };
    Found::Destination(end.address, end.port)
}

#[inline(always)]
fn local_name(sock: Sock, socket: SocketPointer) -> StandIn {
    let port = match sock.local_port() {
        0 => socket.lasting_local_port(),
        port => port,
    };
    StandIn {
        address: sock.local_address(),
        port,
    }
}

/// Answers in the family of the question. A question in the other family finds no connection:
/// ENOENT, as for an IPv4 connection that an IPv6 socket has accepted.
#[inline(always)]
fn answer(call: &mut SockOption, level: i32, address: Address, port: u16) {
    let answered = match (level, address.v4()) {
        (SOL_IP, Some(v4)) => call.answer(SockAddrIn {
            family: AF_INET as u16,
            port: port.to_be(),
            address: v4,
            zero: [0; 2],
        }),
        (SOL_IPV6, None) => call.answer(SockAddrIn6 {
            family: AF_INET6 as u16,
            port: port.to_be(),
            flow_info: 0,
            address: address.words(),
            scope: 0,
        }),
        _ => return set_return_value(ENOENT),
    };
    if !answered {
        set_return_value(EINVAL);
    }
}

/// `struct sockaddr_in`
#[derive(Clone, Copy)]
#[repr(C)]
struct SockAddrIn {
    family: u16,
    port: u16,
    address: u32,
    zero: [u32; 2],
}

/// `struct sockaddr_in6`
#[derive(Clone, Copy)]
#[repr(C)]
struct SockAddrIn6 {
    family: u16,
    port: u16,
    flow_info: u32,
    address: [u32; 4],
    scope: u32,
}
