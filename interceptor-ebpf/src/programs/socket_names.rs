//! `getpeername(2)` and `getsockname(2)`: both ends of a captured connection show the names that
//! they have behind iptables.

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

/// The proxy's accepted socket is where REDIRECT sends connections. A UDP socket that had to send from
/// localhost has the address that routing would have picked.
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

/// Where REDIRECT sends a connection, on the listener's port: what the pod makes to localhost, what
/// comes from beyond it to the interface's address. TPROXY leaves it where it was going.
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

/// The stand-in that the call is about to tell, if it is one. Everybody else's names cost this
/// comparison.
#[inline(always)]
fn stand_in(call: &SockAddr) -> Option<StandIn> {
    let address = call.address();
    StandInRange::contains(address).then(|| StandIn {
        address,
        port: call.port(),
    })
}
