//! `getpeername(2)` and `getsockname(2)`: return the addresses that both ends of a captured
//! connection have behind iptables.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{Address, DNS_CAPTURE_PORT, Destination, Listener, StandIn, StandInRange};

use super::{
    context::{HookResult, SockAddr},
    dns,
    pod::Pod,
    stand_ins,
    uapi::{Family, IPPROTO_UDP},
};

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn icept_peer4(context: SockAddrContext) -> i32 {
    peer_name(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn icept_peer6(context: SockAddrContext) -> i32 {
    peer_name(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

#[cgroup_sock_addr(getsockname4)]
pub(crate) fn icept_name4(context: SockAddrContext) -> i32 {
    socket_name(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(getsockname6)]
pub(crate) fn icept_name6(context: SockAddrContext) -> i32 {
    socket_name(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

/// The app's peer is its original destination.
#[inline(always)]
fn peer_name(mut call: SockAddr) -> HookResult {
    if call.port() == DNS_CAPTURE_PORT
        && call.protocol() == IPPROTO_UDP
        && let Some(server) = dns::captured_server(&call)
    {
        call.set(server.address, server.port);
    } else if let Some(stand_in) = stand_in(&call)
        && let Some(destination) = stand_ins::resolve(call.netns(), stand_in)
    {
        call.set(destination.address, destination.port);
    }
    HookResult::Proceed
}

/// The local address of the proxy's accepted socket is REDIRECT's target; that of a UDP socket
/// which sends from localhost to the agent is the one that routing would have selected.
#[inline(always)]
fn socket_name(mut call: SockAddr) -> HookResult {
    if call.protocol() == IPPROTO_UDP {
        if let Some(source) = dns::visible_local_address(&call) {
            call.set(source, call.port());
        }
    } else if let Some(stand_in) = stand_in(&call)
        && let Some(pod) = Pod::of(call.netns())
        && let Some(destination) = stand_ins::resolve(pod.netns, stand_in)
        && let Some(listener) = Listener::from_byte(destination.listener)
    {
        let (address, port) = redirected(pod, stand_in, destination, listener);
        call.set(address, port);
    }
    HookResult::Proceed
}

/// REDIRECT's target, on the listener's port: localhost for connections of the pod, the interface's
/// address for forwarded ones. TPROXY keeps the destination.
#[inline(always)]
fn redirected(
    pod: Pod,
    stand_in: StandIn,
    destination: Destination,
    listener: Listener,
) -> (Address, u16) {
    let Destination {
        address,
        port,
        interface,
        ..
    } = destination;
    match (interface, listener) {
        (_, Listener::Transparent) => (address, port),
        (0, _) => (stand_in.address.localhost(), listener.port(pod.policy)),
        _ => {
            let redirected = pod.redirect_address(interface, address);
            (redirected, listener.port(pod.policy))
        }
    }
}

/// The stand-in that the call is about to return, if any. The only cost for uncaptured sockets.
#[inline(always)]
fn stand_in(call: &SockAddr) -> Option<StandIn> {
    let address = call.address();
    StandInRange::contains(address).then(|| StandIn {
        address,
        port: call.port(),
    })
}
