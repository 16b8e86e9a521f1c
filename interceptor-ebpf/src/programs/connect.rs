//! `connect(2)`: applies the outbound verdict.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Destination, Flow, Refusal, StandIn, StandInRange, Transport, Verdict, decide,
};

use super::{
    context::{HookResult, SockAddr},
    count, dns, log,
    outbound_call::OutboundCall,
    pod::Pod,
    stand_ins, tproxy,
    uapi::{ECONNREFUSED, EINVAL, Family, IPPROTO_TCP, IPPROTO_UDP, LOOPBACK},
};

// Inlined into the functions that the macro generates: one frame more would exceed the stack.

#[cgroup_sock_addr(connect4)]
#[inline(always)]
pub(crate) fn icept_connect4(context: SockAddrContext) -> i32 {
    connect(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(connect6)]
#[inline(always)]
pub(crate) fn icept_connect6(context: SockAddrContext) -> i32 {
    connect(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

#[inline(always)]
fn connect(call: SockAddr) -> HookResult {
    match call.protocol() {
        IPPROTO_TCP => connect_tcp(call),
        IPPROTO_UDP => dns::connect(call),
        _ => HookResult::Proceed,
    }
}

#[inline(always)]
fn connect_tcp(call: SockAddr) -> HookResult {
    let Some(pod) = Pod::of(call.netns()) else {
        return HookResult::Proceed;
    };
    // Whatever the verdict would be: the packets do not go to the destination.
    if call.has_source_route() {
        return count::refuse(Refusal::SourceRoute, ECONNREFUSED);
    }
    let interface = call.sock().bound_interface();
    let outbound = OutboundCall::of(&call, pod, call.bound_address(), interface);
    match outbound.as_v4() {
        Some(v4) => handle_tcp(call, pod, v4),
        None => handle_tcp(call, pod, outbound),
    }
}

#[inline(always)]
fn handle_tcp(mut call: SockAddr, pod: Pod, outbound: OutboundCall) -> HookResult {
    let address = outbound.destination;
    if address.is_never_tcp() {
        return HookResult::Proceed;
    }
    if StandInRange::contains(address) {
        let port = outbound.port;
        return connect_to_stand_in(pod, StandIn { address, port });
    }
    let lookup = outbound.look_up_route();
    let facts = outbound.flow(&call, Transport::Tcp, lookup);
    let flow = Flow::Outbound(facts);
    let verdict = decide(pod.policy, &pod, &flow);
    log::verdict(pod.policy, &flow, &verdict);
    count::outbound(&call, pod.policy, &verdict);
    match verdict {
        Verdict::Pass(_) => {
            tproxy::keep_to_loopback(&mut call, pod, &facts);
            HookResult::Proceed
        }
        Verdict::Capture(listener, _) => {
            // `tcp_v6_connect`
            if address.is_v6_link_local() && call.scope() == 0 {
                return count::refuse(Refusal::NoRoute, EINVAL);
            }
            match lookup.error_for(outbound.bound) {
                0 => capture(&mut call, pod, outbound.captured_by(listener, lookup)),
                errno => count::refuse(Refusal::NoRoute, errno.into()),
            }
        }
    }
}

/// Redirects the connection to the stand-in of its destination.
#[inline(always)]
fn capture(call: &mut SockAddr, pod: Pod, destination: Destination) -> HookResult {
    // Routing would skip the stand-in's local route and use the next, which leaves the pod
    // (`fib_lookup_good_nhc`, `RT6_LOOKUP_F_IFACE`).
    if !matches!(call.sock().bound_interface(), 0 | LOOPBACK) {
        return count::refuse(Refusal::BoundInterface, ECONNREFUSED);
    }
    match stand_ins::find_or_allocate(pod.netns, destination) {
        Some(stand_in) => {
            call.set(stand_in.address, stand_in.port);
            HookResult::Proceed
        }
        None => count::refuse(Refusal::TableFull, ECONNREFUSED),
    }
}

/// Either a program at an inner cgroup has redirected the connection to the stand-in, or the app
/// has used a stand-in itself, which reaches the proxy only as the destination it was allocated
/// for.
#[inline(always)]
fn connect_to_stand_in(pod: Pod, stand_in: StandIn) -> HookResult {
    match stand_ins::resolve(pod.netns, stand_in) {
        Some(_) => HookResult::Proceed,
        None => count::refuse(Refusal::UnknownStandIn, ECONNREFUSED),
    }
}
