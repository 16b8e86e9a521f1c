//! `connect(2)`: the outbound verdict, carried out.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Address, Destination, Flow, Listener, Outbound, Route, StandIn, StandInRange, Transport,
    Verdict, decide,
};

use super::{
    context::{Answer, Family, SockAddr, refuse},
    log,
    pod::Pod,
    stand_ins,
};

const EINVAL: u32 = 22;
const ECONNREFUSED: u32 = 111;

#[cgroup_sock_addr(connect4)]
pub(crate) fn icept_connect4(context: SockAddrContext) -> i32 {
    connect(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn icept_connect6(context: SockAddrContext) -> i32 {
    connect(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

#[inline(always)]
fn connect(mut call: SockAddr) -> Answer {
    if !call.is_tcp() {
        return Answer::Proceed;
    }
    let Some(pod) = Pod::of(call.netns()) else {
        return Answer::Proceed;
    };
    let (bound, port) = (call.bound_address(), call.port());
    let address = effective_destination(call.address(), bound);
    if address.is_never_tcp() {
        return Answer::Proceed;
    }
    if StandInRange::contains(address) {
        return connect_to_stand_in(pod, StandIn { address, port });
    }
    let route = pod.route(address);
    let flow = Outbound {
        destination: address,
        port,
        transport: Transport::Tcp,
        source: source(bound, route),
        via_loopback: route.is_some_and(Route::is_via_loopback),
        owner: call.socket().owner(),
    };
    let verdict = decide(pod.policy, &pod, &Flow::Outbound(flow));
    log::verdict(pod.policy, &Flow::Outbound(flow), &verdict);
    match verdict {
        Verdict::Pass(_) => Answer::Proceed,
        Verdict::Capture(listener, _) => {
            // `tcp_v6_connect`
            if address.is_v6_link_local() && call.scope() == 0 {
                return refuse(EINVAL);
            }
            if let Some(route) = route
                && is_refused(&call, pod, address, bound, route)
            {
                return refuse(route.error_for(bound).into());
            }
            capture(&mut call, pod, &flow, listener, route)
        }
    }
}

/// Takes the connection to the stand-in of its destination.
#[inline(always)]
fn capture(
    call: &mut SockAddr,
    pod: Pod,
    flow: &Outbound,
    listener: Listener,
    route: Option<&Route>,
) -> Answer {
    let destination = Destination {
        address: flow.destination,
        port: flow.port,
        listener: listener as u8,
        source: route.map_or(0, |route| route.source_index as u8),
    };
    match stand_ins::find_or_allot(pod.netns, destination) {
        Some(stand_in) => {
            call.set(stand_in.address, stand_in.port);
            Answer::Proceed
        }
        None => refuse(ECONNREFUSED),
    }
}

/// A stand-in is either our own work, seen again by a hook in an outer cgroup, or dialled by
/// somebody: that reaches the proxy only as what it was allotted for.
#[inline(always)]
fn connect_to_stand_in(pod: Pod, stand_in: StandIn) -> Answer {
    match stand_ins::resolve(pod.netns, stand_in) {
        Some(_) => Answer::Proceed,
        None => refuse(ECONNREFUSED),
    }
}

/// Whether the kernel would refuse to route. Only while the pod's routes are still what they were
/// when they were copied: else a route that failed may succeed by now, so the connection is
/// captured, and the proxy meets the kernel's answer.
#[inline(always)]
fn is_refused(
    call: &SockAddr,
    pod: Pod,
    destination: Address,
    bound: Address,
    route: &Route,
) -> bool {
    if route.error_for(bound) == 0 {
        return false;
    }
    let now = call.socket().fib_generation();
    pod.policy.fib.is_same(&now, destination.is_v4())
}

/// Where a connection to `address` really goes. The unspecified address means this host: what the
/// socket is bound to for IPv4 (`ip_route_output_key_hash_rcu`), localhost otherwise
/// (`tcp_v6_connect`).
#[inline(always)]
fn effective_destination(address: Address, bound: Address) -> Address {
    if !address.is_unspecified() {
        address
    } else if bound.is_unspecified() || !address.is_v4() {
        let mapped = address.is_v4() || (bound.is_v4() && !bound.is_unspecified());
        if mapped {
            Address::LOCALHOST_V4
        } else {
            Address::LOCALHOST_V6
        }
    } else {
        bound
    }
}

#[inline(always)]
fn source(bound: Address, route: Option<&Route>) -> Address {
    match route {
        Some(route) if bound.is_unspecified() => route.source,
        _ => bound,
    }
}
