//! DNS queries over UDP: the app's datagrams to a captured server go to the agent at
//! localhost:15053, and the agent's responses appear to come from the server.
//!
//! The server is stored with the socket. A socket that queries several servers, as musl's resolver
//! does, sends to all except the first from a stand-in of the server: the agent responds to the
//! stand-in, which identifies the server. (Behind iptables, conntrack gives such a query a source
//! port of its own.) The same holds for a socket that shares its port with others, which may
//! receive the response instead.
//!
//! A query may select its outgoing interface. It reaches the agent if the pod has a route to
//! localhost on that interface (`interceptor/src/netns/localhost_routes.rs`); without that route
//! the query would leave the pod, and is refused.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Address, DNS_CAPTURE_PORT, DNS_PORT, Destination, Flow, Listener, PolicyFlags, Refusal,
    StandInRange, Transport, Verdict, decide,
};

use super::{
    context::{HookResult, SockAddr},
    events::Ends,
    maps::DNS_SOCKETS,
    outbound_call::OutboundCall,
    pod::{Pod, RouteLookup},
    report::{self, Refused},
    stand_ins,
    uapi::{ECONNREFUSED, EINVAL, Family, IPPROTO_UDP},
};

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn icept_send4(context: SockAddrContext) -> i32 {
    send(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn icept_send6(context: SockAddrContext) -> i32 {
    send(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn icept_receive4(context: SockAddrContext) -> i32 {
    receive(SockAddr::new(context.sock_addr, Family::V4)) as i32
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn icept_receive6(context: SockAddrContext) -> i32 {
    receive(SockAddr::new(context.sock_addr, Family::V6)) as i32
}

/// A query that is redirected to the agent.
struct Query {
    pod: Pod,
    server: Destination,
    /// The source address, which the app sees, and the agent if possible; unspecified if the pod
    /// has lost that address.
    source: Address,
    /// Whether socket and datagram have no source address.
    is_unbound: bool,
    /// Whether the socket has queried another server before.
    is_additional_server: bool,
}

/// The system call by which an app sends a query.
#[derive(Clone, Copy)]
enum Operation {
    Connect,
    Send,
}

/// `connect` of a UDP socket, as glibc's resolver does.
#[inline(always)]
pub(crate) fn connect(mut call: SockAddr) -> HookResult {
    remove_assigned_source(&mut call);
    capture_query(call, Operation::Connect)
}

#[inline(always)]
fn connect_to_agent(call: &mut SockAddr, query: &Query) -> Result<(), Refused> {
    // `__ip6_datagram_connect`
    if query.server.address.is_v6_link_local() && call.scope() == 0 {
        return Err(Refused(Refusal::NoRoute, EINVAL));
    }
    let is_stored = call.store(&DNS_SOCKETS, |state| {
        state.server = query.server;
        if query.is_unbound {
            state.source = query.source;
        }
    });
    if !is_stored {
        return Err(Refused(Refusal::TableFull, ECONNREFUSED));
    }
    if query.is_unbound {
        // Fails if the socket has a port already. Then the kernel selects localhost as the source.
        let _bound = call.bind(query.source);
    }
    Ok(())
}

/// Unbinds a socket that was disconnected (`AF_UNSPEC`) from the address that [`connect_to_agent`]
/// has bound it to: the kernel keeps it, as if the app had bound the socket.
#[inline(always)]
fn remove_assigned_source(call: &mut SockAddr) {
    // A program at an inner cgroup has redirected the same call.
    let is_redirected = call.port() == DNS_CAPTURE_PORT;
    if !is_redirected && !call.sock().is_connected() && assigned_source(call).is_some() {
        let _stored = call.store(&DNS_SOCKETS, |state| state.source = Address::UNSPECIFIED_V6);
        let _unbound = call.unbind();
    }
}

/// The address that [`connect_to_agent`] has bound the socket to.
#[inline(always)]
fn assigned_source(call: &SockAddr) -> Option<Address> {
    let source = call.stored(&DNS_SOCKETS)?.source;
    (!source.is_unspecified()).then_some(source)
}

/// The address that the app has bound the socket to.
#[inline(always)]
fn bound_address(call: &SockAddr) -> Address {
    assigned_source(call).unwrap_or_else(|| call.bound_address())
}

impl Operation {
    /// The kernel's source address of the query; unspecified if routing selects it.
    #[inline(always)]
    fn source(self, call: &SockAddr) -> Address {
        match self {
            Self::Connect => call.bound_address(),
            Self::Send => call.datagram_source(),
        }
    }

    /// The source address that the app sees.
    #[inline(always)]
    fn visible_source(self, call: &SockAddr) -> Address {
        let source = self.source(call);
        if source == call.bound_address() {
            bound_address(call)
        } else {
            source
        }
    }

    /// The interface that the app selects, or 0.
    #[inline(always)]
    fn interface(self, call: &SockAddr) -> u32 {
        match self {
            Self::Connect => call.connection_interface(),
            Self::Send => call.datagram_interface(),
        }
    }
}

/// `sendto` and `sendmsg` with an address.
#[inline(always)]
fn send(call: SockAddr) -> HookResult {
    if call.protocol() != IPPROTO_UDP {
        return HookResult::Proceed;
    }
    if call.port() == 0 {
        return send_connected(call);
    }
    if StandInRange::contains(call.address()) {
        return send_response(call);
    }
    capture_query(call, Operation::Send)
}

#[inline(always)]
fn send_to_agent(call: &mut SockAddr, query: &Query) -> Result<(), Refused> {
    let is_connected = call.sock().is_connected();
    let is_for_any = !is_connected && call.socket().shares_port();
    if (query.is_additional_server && (query.is_unbound || is_connected))
        || (is_for_any && query.is_unbound)
    {
        let stand_in = stand_ins::find_or_allocate(query.pod.netns, query.server)
            .ok_or(Refused(Refusal::TableFull, ECONNREFUSED))?;
        call.set_source(stand_in.address);
    } else {
        if !is_connected && !call.store(&DNS_SOCKETS, |state| state.server = query.server) {
            return Err(Refused(Refusal::TableFull, ECONNREFUSED));
        }
        if query.is_unbound {
            call.set_source(query.source);
        }
    }
    Ok(())
}

/// The agent's response to a query from a stand-in: sent from the stand-in.
#[inline(always)]
fn send_response(mut call: SockAddr) -> HookResult {
    if call.sock().local_port() == DNS_CAPTURE_PORT && Pod::of(call.netns()).is_some() {
        call.set_source(call.address());
    }
    HookResult::Proceed
}

#[inline(always)]
fn capture_query(call: SockAddr, kind: Operation) -> HookResult {
    if call.port() != DNS_PORT {
        return HookResult::Proceed;
    }
    let Some(pod) = Pod::of(call.netns()) else {
        return HookResult::Proceed;
    };
    if !pod.policy.flags.contains(PolicyFlags::DNS) {
        return HookResult::Proceed;
    }
    let bound = kind.visible_source(&call);
    let outbound = OutboundCall::of(&call, pod, bound, kind.interface(&call));
    match outbound.as_v4() {
        Some(v4) => handle_query(call, kind, pod, v4),
        None => handle_query(call, kind, pod, outbound),
    }
}

#[inline(always)]
fn handle_query(
    mut call: SockAddr,
    kind: Operation,
    pod: Pod,
    outbound: OutboundCall,
) -> HookResult {
    let lookup = outbound.look_up_route();
    let facts = outbound.flow(&call, Transport::Udp, lookup);
    let verdict = decide(pod.policy, &pod, &Flow::Outbound(facts));
    report::outbound(&call, pod, &facts, &verdict);
    let Verdict::Capture(Listener::Dns, reason) = verdict else {
        return HookResult::Proceed;
    };
    match send_query(&mut call, kind, outbound, lookup) {
        Ok(()) => {
            report::captured(pod, &facts, Listener::Dns, reason);
            call.set(outbound.destination.localhost(), DNS_CAPTURE_PORT);
            HookResult::Proceed
        }
        Err(refused) => report::refuse(&call, outbound.pod, refused),
    }
}

/// Prepares the socket for the agent as its peer.
#[inline(always)]
fn send_query(
    call: &mut SockAddr,
    kind: Operation,
    outbound: OutboundCall,
    lookup: RouteLookup,
) -> Result<(), Refused> {
    let pod = outbound.pod;
    let error = pod.interface_error(outbound.interface, outbound.destination);
    if error != 0 {
        return Err(Refused(Refusal::NoRoute, error));
    }
    // The copied routes are for TCP, which excludes multicast and broadcast, and for sockets that
    // select no interface.
    if outbound.interface == 0 && !outbound.destination.is_never_tcp() {
        let errno = lookup.error_for(outbound.bound);
        if errno != 0 {
            return Err(Refused(Refusal::NoRoute, errno.into()));
        }
    }
    let server = outbound.captured_by(Listener::Dns, lookup);
    let query = Query {
        pod,
        server,
        source: pod
            .policy
            .opaque_address(routed_source(pod, outbound, lookup)),
        is_unbound: kind.source(call).is_unspecified(),
        is_additional_server: call
            .stored(&DNS_SOCKETS)
            .is_some_and(|state| state.server != server),
    };
    match kind {
        Operation::Connect => connect_to_agent(call, &query),
        Operation::Send => send_to_agent(call, &query),
    }
}

/// The source address that routing selects for a query. If the app selects an interface other than
/// the route's, the address of that interface. Unspecified if the pod has lost the address, as
/// nothing can be sent from it (`ip_route_output_key_hash_rcu`): the query then comes from
/// localhost.
#[inline(always)]
fn routed_source(pod: Pod, outbound: OutboundCall, lookup: RouteLookup) -> Address {
    if !outbound.bound.is_unspecified() {
        return outbound.bound;
    }
    let route_interface = lookup.route.map_or(0, |route| route.interface);
    let mut source = outbound.source(lookup);
    if outbound.interface != 0 && outbound.interface != route_interface {
        source = pod.address_at(outbound.interface, outbound.destination);
    }
    if lookup.is_current || pod.has_address_now(source) {
        source
    } else {
        outbound.destination.unspecified()
    }
}

/// A connected socket sends without an address. Only ancillary data need handling: they may select
/// another interface, and remove the source that the socket is bound to.
#[inline(always)]
fn send_connected(mut call: SockAddr) -> HookResult {
    let sock = call.sock();
    let peer = sock.remote_address();
    if sock.remote_port() != DNS_CAPTURE_PORT || peer != peer.localhost() {
        return HookResult::Proceed;
    }
    let (Some(pod), Some(state)) = (Pod::of(call.netns()), call.stored(&DNS_SOCKETS)) else {
        return HookResult::Proceed;
    };
    let bound = Operation::Send.visible_source(&call);
    let interface = Operation::Send.interface(&call);
    let outbound = OutboundCall::of(&call, pod, bound, interface).towards(state.server.address);
    let error = pod.interface_error(interface, peer);
    if error != 0 {
        let ends = Ends {
            source: bound,
            source_port: 0,
            destination: state.server.address,
            port: state.server.port,
        };
        return report::refuse_between(&call, pod, ends, Refused(Refusal::NoRoute, error));
    }
    if call.datagram_source().is_unspecified() {
        call.set_source(routed_source(pod, outbound, outbound.look_up_route()));
    }
    HookResult::Proceed
}

/// `recvfrom` and `recvmsg` with a buffer for the sender's address.
#[inline(always)]
fn receive(mut call: SockAddr) -> HookResult {
    if call.port() == DNS_CAPTURE_PORT
        && let Some(server) = captured_server(&call)
    {
        call.set(server.address, server.port);
    }
    HookResult::Proceed
}

/// The captured server, if the call is about to return the agent's address instead.
#[inline(always)]
pub(crate) fn captured_server(call: &SockAddr) -> Option<&'static Destination> {
    let agent = call.address();
    let server = if StandInRange::contains(agent) {
        stand_ins::resolve_address(call.netns(), agent)?
    } else if agent == agent.localhost() {
        &call.stored(&DNS_SOCKETS)?.server
    } else {
        return None;
    };
    (server.address.is_v4() == agent.is_v4()).then_some(server)
}

/// The local address without capture, if the call is about to return localhost because the socket
/// is connected to the agent.
#[inline(always)]
pub(crate) fn visible_local_address(call: &SockAddr) -> Option<Address> {
    let local = call.address();
    if local != local.localhost() {
        return None;
    }
    assigned_source(call).filter(|source| source.is_v4() == local.is_v4())
}
