//! DNS queries over UDP: the app's datagrams to a captured server go to the agent at
//! localhost:15053, and what the agent answers comes from the server.
//!
//! A socket remembers its server. One that asks several, as musl's resolver does, sends to all but
//! the first from a stand-in of the server: the agent answers to it, that answer comes from it, and
//! it says which server is meant. (Behind iptables conntrack gives such a query a source port of
//! its own.)

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    Address, DNS_PORT, Destination, Flow, Listener, PolicyFlags, StandInRange, Transport, Verdict,
    decide,
};

use super::{
    attempt::Attempt,
    context::{Answer, ECONNREFUSED, Family, IPPROTO_UDP, SockAddr, refuse},
    log,
    maps::DNS_SERVERS,
    pod::Pod,
    stand_ins,
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
    /// Where the agent is to see it come from.
    source: Address,
    /// Whether the socket is not bound to an address.
    is_unbound: bool,
}

/// What an app does to send a query.
#[derive(Clone, Copy)]
enum Call {
    Connect,
    Send,
}

/// `connect` of a UDP socket, as glibc's resolver does.
#[inline(always)]
pub(crate) fn connect(call: SockAddr) -> Answer {
    judge(call, Call::Connect)
}

/// `sendto` and `sendmsg` with an address.
#[inline(always)]
fn send(mut call: SockAddr) -> Answer {
    if StandInRange::contains(call.address()) {
        // The agent's answer.
        call.set_source(call.address());
        return Answer::Proceed;
    }
    if call.protocol() != IPPROTO_UDP {
        return Answer::Proceed;
    }
    judge(call, Call::Send)
}

/// The address that a query is sent from. `None` if a table is full.
#[inline(always)]
fn source_of(call: &SockAddr, query: &Query) -> Option<Address> {
    let cookie = call.cookie();
    match DNS_SERVERS.get_ptr(cookie) {
        // SAFETY: the element is not reused before the program ends.
        Some(first) if unsafe { *first } != query.server => {
            let stand_in = stand_ins::find_or_allot(query.pod.netns, query.server)?;
            Some(stand_in.address)
        }
        Some(_) => Some(query.source),
        None => {
            DNS_SERVERS.insert(cookie, query.server, 0).ok()?;
            Some(query.source)
        }
    }
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
    let attempt = Attempt::of(&call, pod);
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
    if !matches!(verdict, Verdict::Capture(Listener::Dns, _)) {
        return Answer::Proceed;
    }
    // The copied routes speak of TCP, which multicast and broadcast never carry.
    if !attempt.destination.is_never_tcp() {
        let errno = way.error_for(attempt.bound);
        if errno != 0 {
            return refuse(errno.into());
        }
    }
    let query = Query {
        pod,
        server: attempt.captured_by(Listener::Dns, way),
        source: attempt.source(way),
        is_unbound: attempt.bound.is_unspecified(),
    };
    capture(call, kind, &query)
}

/// Takes a query to the agent.
#[inline(always)]
fn capture(mut call: SockAddr, kind: Call, query: &Query) -> Answer {
    let is_remembered = match kind {
        Call::Send if query.is_unbound => match source_of(&call, query) {
            Some(source) => {
                call.set_source(source);
                true
            }
            None => false,
        },
        _ => DNS_SERVERS.insert(call.cookie(), query.server, 0).is_ok(),
    };
    if !is_remembered {
        return refuse(ECONNREFUSED);
    }
    if matches!(kind, Call::Connect) && query.is_unbound {
        // Without it the kernel would pick localhost. It can fail for an address that the pod has
        // no more; then it does.
        let _bound = call.bind(query.source);
    }
    call.set(query.server.address.localhost(), DNS_PORT);
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
        // SAFETY: the element is not reused before the program ends.
        unsafe { &*DNS_SERVERS.get_ptr(call.cookie())? }
    } else {
        return None;
    };
    (server.address.is_v4() == agent.is_v4()).then_some(server)
}
