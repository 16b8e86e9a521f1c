//! `connect(2)`: applies the outbound verdict.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Flow, Listener, Refusal, StandIn, StandInRange, Transport, Verdict, decide,
};

use super::{
    context::{HookResult, SockAddr},
    dns,
    outbound_call::OutboundCall,
    pod::{Pod, RouteLookup},
    report::{self, Refused},
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
        return report::refuse(&call, pod, Refused(Refusal::SourceRoute, ECONNREFUSED));
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
        return connect_to_stand_in(&call, pod, StandIn { address, port });
    }
    let lookup = outbound.look_up_route();
    let facts = outbound.flow(&call, Transport::Tcp, lookup);
    let verdict = decide(pod.policy, &pod, &Flow::Outbound(facts));
    report::outbound(&call, pod, &facts, &verdict);
    let (listener, reason) = match verdict {
        Verdict::Pass(_) => {
            tproxy::keep_to_loopback(&mut call, pod, &facts);
            return HookResult::Proceed;
        }
        Verdict::Capture(listener, reason) => (listener, reason),
    };
    match stand_in(&call, outbound, lookup, listener) {
        Ok(stand_in) => {
            report::captured(pod, &facts, listener, reason);
            call.set(stand_in.address, stand_in.port);
            HookResult::Proceed
        }
        Err(refused) => report::refuse(&call, pod, refused),
    }
}

/// The stand-in of a captured connection's destination, unless the connection would fail or bypass
/// the proxy.
#[inline(always)]
fn stand_in(
    call: &SockAddr,
    outbound: OutboundCall,
    lookup: RouteLookup,
    listener: Listener,
) -> Result<StandIn, Refused> {
    // `tcp_v6_connect`
    if outbound.destination.is_v6_link_local() && call.scope() == 0 {
        return Err(Refused(Refusal::NoRoute, EINVAL));
    }
    let errno = lookup.error_for(outbound.bound);
    if errno != 0 {
        return Err(Refused(Refusal::NoRoute, errno.into()));
    }
    // Routing would skip the stand-in's local route and use the next, which leaves the pod
    // (`fib_lookup_good_nhc`, `RT6_LOOKUP_F_IFACE`).
    if !matches!(call.sock().bound_interface(), 0 | LOOPBACK) {
        return Err(Refused(Refusal::BoundInterface, ECONNREFUSED));
    }
    let destination = outbound.captured_by(listener, lookup);
    stand_ins::find_or_allocate(outbound.pod.netns, destination)
        .ok_or(Refused(Refusal::TableFull, ECONNREFUSED))
}

/// Either a program at an inner cgroup has redirected the connection to the stand-in, or the app
/// has used a stand-in itself, which reaches the proxy only as the destination it was allocated
/// for.
#[inline(always)]
fn connect_to_stand_in(call: &SockAddr, pod: Pod, stand_in: StandIn) -> HookResult {
    match stand_ins::resolve(pod.netns, stand_in) {
        Some(_) => HookResult::Proceed,
        None => report::refuse(call, pod, Refused(Refusal::UnknownStandIn, ECONNREFUSED)),
    }
}
