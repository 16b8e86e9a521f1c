//! `getsockopt(SO_ORIGINAL_DST)`: returns what `nf_conntrack` returns behind the REDIRECT rules.

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use interceptor_ebpf::{PolicyFlags, StandIn, StandInRange};

use super::{
    context::{HookResult, Sock, SockOption, set_return_value},
    kernel_memory::SocketPointer,
    pod::Pod,
    stand_ins,
    uapi::{
        AF_INET, AF_INET6, EINVAL, ENOENT, EOPNOTSUPP, IPPROTO_MPTCP, IPPROTO_TCP, SO_ORIGINAL_DST,
        SOL_IP, SOL_IPV6, SockAddrIn, SockAddrIn6,
    },
};

#[cgroup_sockopt(getsockopt)]
pub(crate) fn icept_origdst(context: SockoptContext) -> i32 {
    getsockopt(SockOption::new(context.sockopt)) as i32
}

#[inline(always)]
fn getsockopt(mut call: SockOption) -> HookResult {
    let level = call.level();
    if call.name() == SO_ORIGINAL_DST && (level == SOL_IP || level == SOL_IPV6) {
        original_destination(&mut call, level);
    } else {
        call.keep_long_value();
    }
    HookResult::Proceed
}

#[inline(always)]
fn original_destination(call: &mut SockOption, level: i32) {
    let Some(pod) = Pod::of(call.netns()) else {
        return;
    };
    let sock = call.sock();
    if !queries_conntrack(sock, level, call.kernel_result()) {
        return;
    }
    if !has_room(call, level) {
        return set_return_value(EINVAL);
    }
    match find(pod, sock, call.socket(), call.kernel_result() == 0) {
        Found::Destination(end) => return_destination(call, pod, level, sock, end),
        Found::Nothing => set_return_value(ENOENT),
        Found::KernelResult => {}
    }
}

/// Whether the kernel would query conntrack. If not, its own error remains: ENOPROTOOPT for other
/// protocols and for the IPv6 option of an IPv4 socket, EOPNOTSUPP for MPTCP. (An MPTCP socket with
/// a TCP peer has fallen back to TCP, and queries conntrack.)
#[inline(always)]
fn queries_conntrack(sock: Sock, level: i32, kernel_result: i32) -> bool {
    let is_tcp = match sock.protocol() {
        IPPROTO_TCP => true,
        IPPROTO_MPTCP => kernel_result != -(EOPNOTSUPP as i32),
        _ => false,
    };
    is_tcp && (level == SOL_IP || sock.family() == AF_INET6)
}

#[inline(always)]
fn has_room(call: &SockOption, level: i32) -> bool {
    if level == SOL_IP {
        call.has_room_for::<SockAddrIn>()
    } else {
        call.has_room_for::<SockAddrIn6>()
    }
}

enum Found {
    Destination(StandIn),
    Nothing,
    /// The pod has iptables rules of its own, or Istio's: conntrack's result remains.
    KernelResult,
}

/// The stand-in's destination first, then the kernel's own result, then the socket's addresses.
#[inline(always)]
fn find(pod: Pod, sock: Sock, socket: SocketPointer, has_kernel_result: bool) -> Found {
    let local = local_name(sock, socket);
    let remote = StandIn {
        address: sock.remote_address(),
        port: sock.remote_port(),
    };
    let is_accepted = || socket.is_accepted(sock.family());
    // Never connected, or listening. (A reset leaves the peer's port in place.)
    let is_connected = remote.port != 0 && (!socket.is_untracked(sock.state()) || is_accepted());
    for end in [local, remote] {
        if StandInRange::contains(end.address) {
            return match stand_ins::resolve(pod.netns, end) {
                Some(destination) if is_connected => Found::Destination(StandIn {
                    address: destination.address,
                    port: destination.port,
                }),
                _ => Found::Nothing,
            };
        }
    }
    if has_kernel_result {
        return Found::KernelResult;
    }
    match is_connected {
        false => Found::Nothing,
        true if is_accepted() => Found::Destination(local),
        true => Found::Destination(remote),
    }
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

/// Returns the destination if it is of the option's family. Otherwise ENOENT, as for an IPv4
/// connection that an IPv6 socket has accepted, and as for IPv6 where no rules make conntrack track
/// it.
#[inline(always)]
fn return_destination(call: &mut SockOption, pod: Pod, level: i32, sock: Sock, end: StandIn) {
    let StandIn { address, port } = end;
    match (level, address.v4()) {
        (SOL_IP, Some(v4)) => call.set_value(SockAddrIn {
            family: AF_INET as u16,
            port: port.to_be(),
            address: v4,
            zero: [0; 2],
        }),
        (SOL_IPV6, None) if pod.policy.flags.contains(PolicyFlags::IPV6) => {
            let scope = if address.is_v6_link_local() {
                sock.bound_interface()
            } else {
                0
            };
            call.set_value(SockAddrIn6 {
                family: AF_INET6 as u16,
                port: port.to_be(),
                flow_info: 0,
                address: address.words(),
                scope,
            });
        }
        _ => set_return_value(ENOENT),
    }
}
