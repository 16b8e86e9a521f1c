//! DNS queries over UDP: the app's datagrams to a captured server go to the agent at
//! localhost:15053, and what the agent answers comes from the server.
//!
//! A socket remembers its server. One that asks several, as musl's resolver does, sends to all but
//! the first from a stand-in of the server: the agent answers to it, that answer comes from it, and
//! it says which server is meant. (Behind iptables conntrack gives such a query a source port of
//! its own.) So does one that shares its port with others, which may get the answer in its place.
//!
//! A query may name the interface that it is to leave by. The agent is where the pod's routing has
//! localhost by way of that interface too (`interceptor/src/netns/localhost_routes.rs`); without that
//! route the query would leave the pod, and is refused.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Address, DNS_PORT, Destination, Flow, Listener, PolicyFlags, Refusal, StandInRange, Transport,
    Verdict, decide,
};

use super::{
    context::{Answer, SockAddr},
    count, log,
    maps::ASKED,
    outbound_call::Attempt,
    pod::{Pod, Way},
    stand_ins,
    uapi::{ECONNREFUSED, EINVAL, Family, IPPROTO_UDP},
};

/// Where DNS servers listen.
const DNS: u16 = 53;

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

/// A query that the agent gets.
struct Query {
    pod: Pod,
    server: Destination,
    /// Where the app sees it come from, and the agent as far as that can be; unspecified if the pod
    /// has lost that address.
    source: Address,
    /// Whether neither the socket nor the datagram has a source address.
    is_unbound: bool,
    /// Whether the socket has asked another server before.
    is_one_more: bool,
}

/// What an app does to send a query.
#[derive(Clone, Copy)]
enum Call {
    Connect,
    Send,
}

/// `connect` of a UDP socket, as glibc's resolver does.
#[inline(always)]
pub(crate) fn connect(mut call: SockAddr) -> Answer {
    take_source_back(&mut call);
    judge(call, Call::Connect)
}

#[inline(always)]
fn connect_to_agent(mut call: SockAddr, query: &Query) -> Answer {
    // `__ip6_datagram_connect`
    if query.server.address.is_v6_link_local() && call.scope() == 0 {
        return count::refuse(Refusal::NoRoute, EINVAL);
    }
    let is_kept = call.keep(&ASKED, |asked| {
        asked.server = query.server;
        if query.is_unbound {
            asked.source = query.source;
        }
    });
    if !is_kept {
        return count::refuse(Refusal::TableFull, ECONNREFUSED);
    }
    if query.is_unbound {
        // Without it the kernel picks localhost, as it does where it fails: the socket has a port
        // already.
        let _bound = call.bind(query.source);
    }
    call.set(query.server.address.localhost(), DNS_PORT);
    Answer::Proceed
}

/// A socket whose connection was dissolved keeps what it is bound to, and cannot know that it was we
/// who bound it.
#[inline(always)]
fn take_source_back(call: &mut SockAddr) {
    // Our own work, seen again by a hook in an outer cgroup.
    let is_under_way = call.port() == DNS_PORT;
    if !is_under_way && !call.sock().is_connected() && given_source(call).is_some() {
        let _kept = call.keep(&ASKED, |asked| asked.source = Address::UNSPECIFIED_V6);
        let _unbound = call.unbind();
    }
}

/// The address that we gave the socket.
#[inline(always)]
fn given_source(call: &SockAddr) -> Option<Address> {
    let source = call.kept(&ASKED)?.source;
    (!source.is_unspecified()).then_some(source)
}

/// What the socket is bound to, as the app sees it.
#[inline(always)]
fn bound_address(call: &SockAddr) -> Address {
    given_source(call).unwrap_or_else(|| call.bound_address())
}

impl Call {
    /// Where the query comes from by the kernel's reckoning; unspecified if routing is to pick.
    #[inline(always)]
    fn source(self, call: &SockAddr) -> Address {
        match self {
            Self::Connect => call.bound_address(),
            Self::Send => call.datagram_source(),
        }
    }

    /// The same as the app sees it.
    #[inline(always)]
    fn visible_source(self, call: &SockAddr) -> Address {
        let source = self.source(call);
        if source == call.bound_address() {
            bound_address(call)
        } else {
            source
        }
    }

    /// The interface that the app names, or 0.
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
fn send(call: SockAddr) -> Answer {
    if call.protocol() != IPPROTO_UDP {
        return Answer::Proceed;
    }
    if call.port() == 0 {
        return send_connected(call);
    }
    if StandInRange::contains(call.address()) {
        return answer(call);
    }
    judge(call, Call::Send)
}

#[inline(always)]
fn send_to_agent(mut call: SockAddr, query: &Query) -> Answer {
    let is_connected = call.sock().is_connected();
    let is_for_any = !is_connected && call.socket().shares_port();
    if (query.is_one_more && (query.is_unbound || is_connected)) || (is_for_any && query.is_unbound)
    {
        let Some(stand_in) = stand_ins::find_or_allot(query.pod.netns, query.server) else {
            return count::refuse(Refusal::TableFull, ECONNREFUSED);
        };
        call.set_source(stand_in.address);
    } else {
        if !is_connected && !call.keep(&ASKED, |asked| asked.server = query.server) {
            return count::refuse(Refusal::TableFull, ECONNREFUSED);
        }
        if query.is_unbound {
            call.set_source(query.source);
        }
    }
    call.set(query.server.address.localhost(), DNS_PORT);
    Answer::Proceed
}

/// The agent's answer to a query that came from a stand-in comes from the stand-in.
#[inline(always)]
fn answer(mut call: SockAddr) -> Answer {
    if call.sock().local_port() == DNS_PORT && Pod::of(call.netns()).is_some() {
        call.set_source(call.address());
    }
    Answer::Proceed
}

#[inline(always)]
fn judge(call: SockAddr, kind: Call) -> Answer {
    if call.port() != DNS {
        return Answer::Proceed;
    }
    let Some(pod) = Pod::of(call.netns()) else {
        return Answer::Proceed;
    };
    if !pod.policy.flags.contains(PolicyFlags::DNS) {
        return Answer::Proceed;
    }
    let bound = kind.visible_source(&call);
    let attempt = Attempt::of(&call, pod, bound, kind.interface(&call));
    match attempt.as_v4() {
        Some(v4) => judge_attempt(call, kind, pod, v4),
        None => judge_attempt(call, kind, pod, attempt),
    }
}

#[inline(always)]
fn judge_attempt(call: SockAddr, kind: Call, pod: Pod, attempt: Attempt) -> Answer {
    let way = attempt.way();
    let flow = Flow::Outbound(attempt.flow(&call, Transport::Udp, way));
    let verdict = decide(pod.policy, &pod, &flow);
    log::verdict(pod.policy, &flow, &verdict);
    count::outbound(&call, pod.policy, &verdict);
    if !matches!(verdict, Verdict::Capture(Listener::Dns, _)) {
        return Answer::Proceed;
    }
    let error = pod.error_by_way_of(attempt.interface, attempt.destination);
    if error != 0 {
        return count::refuse(Refusal::NoRoute, error);
    }
    // The copied routes speak of TCP, which multicast and broadcast never carry, and of sockets that
    // name no interface.
    if attempt.interface == 0 && !attempt.destination.is_never_tcp() {
        let errno = way.error_for(attempt.bound);
        if errno != 0 {
            return count::refuse(Refusal::NoRoute, errno.into());
        }
    }
    let server = attempt.captured_by(Listener::Dns, way);
    let query = Query {
        pod,
        server,
        source: pod.policy.unlearned_address(source_by(pod, attempt, way)),
        is_unbound: kind.source(&call).is_unspecified(),
        is_one_more: call
            .kept(&ASKED)
            .is_some_and(|asked| asked.server != server),
    };
    match kind {
        Call::Connect => connect_to_agent(call, &query),
        Call::Send => send_to_agent(call, &query),
    }
}

/// The address that routing picks for a query. That of another interface than the route's is that
/// interface's. What the pod has lost nothing can be sent from (`ip_route_output_key_hash_rcu`):
/// unspecified then, and the query comes from localhost.
#[inline(always)]
fn source_by(pod: Pod, attempt: Attempt, way: Way) -> Address {
    if !attempt.bound.is_unspecified() {
        return attempt.bound;
    }
    let route_interface = way.route.map_or(0, |route| route.interface);
    let mut source = attempt.source(way);
    if attempt.interface != 0 && attempt.interface != route_interface {
        source = pod.address_at(attempt.interface, attempt.destination);
    }
    if way.is_current || pod.has_now(source) {
        source
    } else {
        attempt.destination.unspecified()
    }
}

/// A connected socket sends without an address, which only ancillary data make a hook's business: they
/// may name another interface, and take the source away that the socket is bound to.
#[inline(always)]
fn send_connected(mut call: SockAddr) -> Answer {
    let sock = call.sock();
    let peer = sock.remote_address();
    if sock.remote_port() != DNS_PORT || peer != peer.localhost() {
        return Answer::Proceed;
    }
    let (Some(pod), Some(asked)) = (Pod::of(call.netns()), call.kept(&ASKED)) else {
        return Answer::Proceed;
    };
    let bound = Call::Send.visible_source(&call);
    let interface = Call::Send.interface(&call);
    let attempt = Attempt::of(&call, pod, bound, interface).towards(asked.server.address);
    let error = pod.error_by_way_of(interface, peer);
    if error != 0 {
        return count::refuse(Refusal::NoRoute, error);
    }
    if call.datagram_source().is_unspecified() {
        call.set_source(source_by(pod, attempt, attempt.way()));
    }
    Answer::Proceed
}

/// `recvfrom` and `recvmsg` that ask who has sent.
#[inline(always)]
fn receive(mut call: SockAddr) -> Answer {
    if call.port() == DNS_PORT
        && let Some(server) = server(&call)
    {
        call.set(server.address, server.port);
    }
    Answer::Proceed
}

/// The server that a call which is about to tell the agent's address means.
#[inline(always)]
pub(crate) fn server(call: &SockAddr) -> Option<&'static Destination> {
    let agent = call.address();
    let server = if StandInRange::contains(agent) {
        stand_ins::resolve_address(call.netns(), agent)?
    } else if agent == agent.localhost() {
        &call.kept(&ASKED)?.server
    } else {
        return None;
    };
    (server.address.is_v4() == agent.is_v4()).then_some(server)
}

/// The address that a call which is about to tell localhost's would tell, had the socket not been
/// connected to the agent.
#[inline(always)]
pub(crate) fn source(call: &SockAddr) -> Option<Address> {
    let local = call.address();
    if local != local.localhost() {
        return None;
    }
    given_source(call).filter(|source| source.is_v4() == local.is_v4())
}
