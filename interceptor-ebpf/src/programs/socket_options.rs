//! `setsockopt(2)`: refuses options by which packets of a captured pod would bypass the proxy.
//!
//! `connect` refuses sockets with such options; this hook refuses the options after `connect`.
//! (The kernel does not call this hook for 32-bit processes on 64-bit kernels.)

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};
use interceptor_ebpf::{PolicyFlags, StandInRange};

use super::{
    context::{HookResult, SockOption, current_owner, refuse},
    pod::Pod,
    uapi::{
        EPERM, IP_HDRINCL, IP_OPTIONS, IPPROTO_MPTCP, IPPROTO_TCP, IPPROTO_UDP,
        IPV6_2292PKTOPTIONS, IPV6_HDRINCL, IPV6_RTHDR, SO_BINDTODEVICE, SO_BINDTOIFINDEX, SOCK_RAW,
        SOL_IP, SOL_IPV6, SOL_SOCKET,
    },
};

/// The types of loose and strict source routes (RFC 791).
const SOURCE_ROUTES: [u8; 2] = [131, 137];
/// The maximum length of IP options.
const MAX_IP_OPTIONS: usize = 40;

#[cgroup_sockopt(setsockopt)]
pub(crate) fn icept_setopt(context: SockoptContext) -> i32 {
    setsockopt(SockOption::new(context.sockopt)) as i32
}

#[inline(always)]
fn setsockopt(mut call: SockOption) -> HookResult {
    let refused = match (call.level(), call.name()) {
        (SOL_IP, IP_OPTIONS) => has_source_route(&call) && is_of_captured_kind(&call),
        // An empty value removes a routing header.
        (SOL_IPV6, IPV6_RTHDR | IPV6_2292PKTOPTIONS) => {
            call.length() > 0 && is_of_captured_kind(&call)
        }
        (SOL_IP, IP_HDRINCL) | (SOL_IPV6, IPV6_HDRINCL) => may_send_any_packet(&call),
        (SOL_SOCKET, SO_BINDTODEVICE | SO_BINDTOIFINDEX) => is_captured(&call),
        _ => false,
    };
    if refused {
        return refuse(EPERM);
    }
    call.keep_long_value();
    HookResult::Proceed
}

/// Whether IP options may have a source route: whether any byte equals the type of one.
#[inline(always)]
fn has_source_route(call: &SockOption) -> bool {
    let mut found = false;
    for index in 0..MAX_IP_OPTIONS {
        found |= call
            .byte(index)
            .is_some_and(|byte| SOURCE_ROUTES.contains(&byte));
    }
    found
}

/// Whether the socket is of a captured pod and of a protocol that is captured.
#[inline(always)]
fn is_of_captured_kind(call: &SockOption) -> bool {
    let Some(pod) = Pod::of(call.netns()) else {
        return false;
    };
    match call.sock().protocol() {
        IPPROTO_TCP | IPPROTO_MPTCP => true,
        IPPROTO_UDP => pod.policy.flags.contains(PolicyFlags::DNS),
        _ => false,
    }
}

/// Whether a raw socket of a captured pod's app sets the option by which it writes IP headers itself:
/// the packets may be TCP, see `programs/socket_creation.rs`.
#[inline(always)]
fn may_send_any_packet(call: &SockOption) -> bool {
    let is_set = (0..size_of::<u32>()).any(|index| call.byte(index).is_some_and(|byte| byte != 0));
    is_set
        && call.sock().kind() == SOCK_RAW
        && Pod::of(call.netns()).is_some_and(|pod| !pod.policy.is_proxy(current_owner()))
}

/// Whether the socket is connected to a stand-in.
#[inline(always)]
fn is_captured(call: &SockOption) -> bool {
    StandInRange::contains(call.sock().remote_address()) && Pod::of(call.netns()).is_some()
}
