//! A map of sockets cannot hold MPTCP listeners, so a proxy cannot create any.

use aya_ebpf::{helpers::bpf_get_current_uid_gid, macros::cgroup_sock, programs::SockContext};

use super::{
    context::{HookResult, NewSocket, refuse},
    pod::Pod,
    uapi::{EPROTONOSUPPORT, IPPROTO_MPTCP},
};

/// Refuses `IPPROTO_MPTCP` to the proxy as a kernel without MPTCP does; its users (Go, by default)
/// fall back to TCP. Apps may use MPTCP: the kernel accepts an MPTCP client on a TCP listener as
/// TCP.
#[cgroup_sock(sock_create)]
pub(crate) fn icept_create(context: SockContext) -> i32 {
    create(NewSocket::new(context.sock)) as i32
}

#[inline(always)]
fn create(socket: NewSocket) -> HookResult {
    if socket.protocol() != IPPROTO_MPTCP {
        return HookResult::Proceed;
    }
    let Some(pod) = Pod::of(socket.netns()) else {
        return HookResult::Proceed;
    };
    let ids = bpf_get_current_uid_gid();
    let (uid, gid) = (ids as u32, (ids >> 32) as u32);
    if pod.policy.uids.contains(uid) || pod.policy.gids.contains(gid) {
        return refuse(EPROTONOSUPPORT);
    }
    HookResult::Proceed
}
