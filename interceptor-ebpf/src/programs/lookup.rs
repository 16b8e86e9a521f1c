//! `sk_lookup`: selects the listening socket of a new connection.
//!
//! The hook has no helper for the network namespace's cookie. So each namespace has a small
//! dispatcher of its own, which userspace generates with the cookie in it
//! (`interceptor/src/bpf/dispatcher.rs`); it passes everything except TCP, and tail-calls this
//! program, which all share.
//!
//! This hook drops what it cannot deliver, which the client sees as a refused connection: no
//! captured connection bypasses the proxy here.

use core::{array, ffi::c_void};

use aya_ebpf::{
    bindings::bpf_sk_lookup,
    helpers::{
        bpf_loop,
        generated::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    },
    macros::sk_lookup,
    programs::SkLookupContext,
};
use interceptor_ebpf::{
    Address, Call, Direction, Flow, Inbound, InterfaceFlags, Listener, ListenerAddress,
    ListenerKey, ListenerPort, ListenerPortKey, NetnsCookie, Policy, PolicyFlags, Refusal, StandIn,
    StandInRange, Verdict, decide,
};

use super::{
    context::{SkLookup, Sock},
    events::Ends,
    kernel_memory::SocketPointer,
    listeners::candidates,
    maps::{CALLS, LISTENER_PORTS, LISTENERS},
    pod::Pod,
    report, self_connections, share, stand_ins,
    uapi::LOOPBACK,
};

const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;

#[sk_lookup]
pub(crate) fn icept_lookup(context: SkLookupContext) -> u32 {
    let packet = SkLookup::new(context.lookup);
    let Some(netns) = caller(&packet) else {
        return SK_DROP;
    };
    let Some(pod) = Pod::of(netns) else {
        return SK_PASS;
    };
    let local = StandIn {
        address: packet.local_address(),
        port: packet.local_port(),
    };
    let interface = packet.interface();
    let from_pod = interface == LOOPBACK || is_from_itself(&packet, pod, local);
    let outcome = if StandInRange::contains(local.address) {
        lookup_stand_in(&context, pod, local, from_pod, interface)
    } else if from_pod {
        // `connect` has decided.
        Ok(())
    } else {
        lookup_inbound(&context, &packet, pod, local, interface)
    };
    let Err(refusal) = outcome else {
        return SK_PASS;
    };
    let direction = if from_pod {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let ends = ends(&packet, original(pod, local));
    report::refusal(pod, ends, direction, refusal);
    SK_DROP
}

/// The destination before `connect` or a tc program has replaced it by a stand-in.
#[inline(always)]
fn original(pod: Pod, local: StandIn) -> StandIn {
    if !StandInRange::contains(local.address) {
        return local;
    }
    stand_ins::resolve(pod.netns, local).map_or(local, |destination| StandIn {
        address: destination.address,
        port: destination.port,
    })
}

#[inline(always)]
fn ends(packet: &SkLookup, local: StandIn) -> Ends {
    Ends {
        source: packet.remote_address(),
        source_port: packet.remote_port(),
        destination: local.address,
        port: local.port,
    }
}

/// A packet to a stand-in, from the pod itself or from `interface`. (A lookup without a packet, as
/// of `SOCK_DESTROY`, names no interface, and is not the pod's.)
#[inline(always)]
fn lookup_stand_in(
    context: &SkLookupContext,
    pod: Pod,
    stand_in: StandIn,
    from_pod: bool,
    interface: u32,
) -> Result<(), Refusal> {
    // Neighbours on a link without our tc programs can send there, too.
    if !from_pod && !pod.watches(interface) {
        return Err(Refusal::UnknownStandIn);
    }
    let incoming = if from_pod { 0 } else { interface };
    deliver_captured(context, pod, stand_in, incoming)
}

/// A connection from outside the pod: the inbound verdict.
#[inline(always)]
fn lookup_inbound(
    context: &SkLookupContext,
    packet: &SkLookup,
    pod: Pod,
    local: StandIn,
    interface: u32,
) -> Result<(), Refusal> {
    let lists = pod.interface_flags(interface);
    let flow = Flow::Inbound(Inbound {
        destination: local.address,
        port: local.port,
        by_excluded_interface: lists.contains(InterfaceFlags::EXCLUDED),
        by_rerouted_interface: lists.contains(InterfaceFlags::REROUTED),
    });
    let verdict = decide(pod.policy, &pod, &flow);
    report::inbound(pod, ends(packet, local), &verdict);
    let Verdict::Capture(listener, reason) = verdict else {
        return Ok(());
    };
    let exact = pod.redirect_address(interface, local.address);
    deliver(context, pod, listener, exact, interface)?;
    report::captured_inbound(pod, ends(packet, local), listener, reason);
    Ok(())
}

/// Whether the pod itself has sent a packet whose incoming interface is the one with `to`. The
/// source address alone proves nothing: IPv6 accepts any from outside, IPv4 with `accept_local`.
#[inline(always)]
fn is_from_itself(packet: &SkLookup, pod: Pod, to: StandIn) -> bool {
    let from = (packet.remote_address(), packet.remote_port());
    pod.owns(from.0) && self_connections::is_in_handshake(pod.netns, from, (to.address, to.port))
}

/// The network namespace whose dispatcher has called. `None` if another lookup has interrupted it.
#[inline(always)]
fn caller(packet: &SkLookup) -> Option<NetnsCookie> {
    let slot = CALLS.get_ptr(0)?;
    let caller = packet.distance_from(slot);
    // SAFETY: the slot lives as long as the map. Each word is read by one instruction, so
    // concurrent writes do not tear it.
    let words = array::from_fn(|word| unsafe { (&raw const (*slot).words[word]).read_volatile() });
    Call { words }.netns(caller)
}

/// A connection that was redirected to a stand-in: by `connect`, where REDIRECT would use
/// localhost, or by the tc program of an interface, where REDIRECT would use the interface's
/// address.
#[inline(always)]
fn deliver_captured(
    context: &SkLookupContext,
    pod: Pod,
    stand_in: StandIn,
    incoming: u32,
) -> Result<(), Refusal> {
    let unknown = Refusal::UnknownStandIn;
    let destination = stand_ins::resolve(pod.netns, stand_in).ok_or(unknown)?;
    let listener = Listener::from_byte(destination.listener).ok_or(unknown)?;
    if destination.interface != incoming {
        return Err(unknown);
    }
    if incoming == 0 {
        let localhost = stand_in.address.localhost();
        return deliver(context, pod, listener, localhost, LOOPBACK);
    }
    let exact = pod.redirect_address(incoming, destination.address);
    deliver(context, pod, listener, exact, incoming)
}

/// Assigns the connection, which REDIRECT would send to `exact` on `interface`, to the proxy's
/// listener that is bound to that address or to a wildcard.
#[inline(always)]
fn deliver(
    context: &SkLookupContext,
    pod: Pod,
    listener: Listener,
    exact: Address,
    interface: u32,
) -> Result<(), Refusal> {
    let target = Target {
        netns: pod.netns,
        exact,
        interface,
        port: listener.port(pod.policy).into(),
    };
    match icept_assign(context.lookup, pod.policy, &raw const target) {
        Assignment::Done => Ok(()),
        Assignment::NoListener => Err(Refusal::NoListener),
        Assignment::NotProxy => Err(Refusal::NotProxy),
    }
}

/// Where REDIRECT would send a connection. (Without padding: verifiers up to 6.2 require that all
/// bytes behind an argument are initialized.)
#[repr(C)]
struct Target {
    netns: NetnsCookie,
    exact: Address,
    interface: u32,
    /// In host byte order.
    port: u32,
}

/// The result of [`icept_assign`].
#[repr(u32)]
enum Assignment {
    Done,
    NoListener,
    NotProxy,
}

/// Assigns the connection to a listener that is bound to the target's address or to a wildcard.
///
/// A global function, which the verifier verifies once; a static function it would verify again on
/// each of its callers' many paths. The pointers are never null, but the verifier requires a test.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_assign(
    context: *mut bpf_sk_lookup,
    policy: *const Policy,
    target: *const Target,
) -> Assignment {
    // SAFETY: `deliver` passes a policy that lives as long as the program runs.
    let policy = unsafe { policy.as_ref() };
    // SAFETY: `deliver` passes its own `Target`.
    let target = unsafe { target.as_ref() };
    let (Some(policy), Some(target)) = (policy, target) else {
        return Assignment::NoListener;
    };
    let (netns, port) = (target.netns, target.port as u16);
    let Some(known) = LISTENER_PORTS.get_ptr_mut(ListenerPortKey::new(netns, port)) else {
        return Assignment::NoListener;
    };
    let mut search = Search {
        context,
        key: ListenerKey::new(netns, ListenerAddress::Other, port),
        exact: target.exact,
        interface: target.interface,
        policy,
        found: 0,
        foreign: 0,
    };
    // No iterator: the compiler would not inline it.
    let [first, second, third] = candidates(target.exact);
    let is_delivered =
        search.assign(first, known) || search.assign(second, known) || search.assign(third, known);
    match (is_delivered, search.foreign) {
        (true, _) => Assignment::Done,
        (false, 0) => Assignment::NoListener,
        (false, _) => Assignment::NotProxy,
    }
}

/// A search for a listening socket: the context of `bpf_loop`'s callback.
struct Search {
    context: *mut bpf_sk_lookup,
    key: ListenerKey,
    exact: Address,
    interface: u32,
    policy: &'static Policy,
    found: u32,
    /// 1 if a socket would receive the connection without strict mode.
    foreign: u32,
}

impl Search {
    /// Assigns one of the sockets on this kind of address: the one that was found last, otherwise the
    /// first in the slots. (`bpf_loop` instead of a loop, because the verifier of 6.1 follows every
    /// iteration of a loop.)
    #[inline(always)]
    fn assign(&mut self, kind: ListenerAddress, known: *mut ListenerPort) -> bool {
        // SAFETY: the entry lives as long as the program runs; a racing update only changes where
        // the next search starts.
        let found = unsafe { &raw mut (*known).found[kind as usize] };
        // SAFETY: as above.
        let last = unsafe { found.read_volatile() };
        if last == 0 {
            return false;
        }
        self.key = ListenerKey::new(self.key.netns, kind, self.key.port);
        if self.try_slot(u64::from(last) - 1) {
            return true;
        }
        let callback = try_slot as *mut c_void;
        // SAFETY: the callback's context has the type that it expects, and outlives the call.
        unsafe {
            let slots = share::of_pod().listener_slots;
            let search = (&raw mut *self).cast();
            bpf_loop(slots, callback, search, 0);
        }
        if self.found == 0 {
            return false;
        }
        // SAFETY: as above.
        unsafe { found.write_volatile(self.key.slot + 1) };
        true
    }

    /// Assigns the socket in `slot`, if there is one. The kernel itself selects from the
    /// `SO_REUSEPORT` group of that socket, and rejects an `IPV6_V6ONLY` socket for IPv4.
    #[inline(always)]
    fn try_slot(&mut self, slot: u64) -> bool {
        self.key.slot = slot as u16;
        let map = (&raw const LISTENERS).cast_mut().cast();
        // SAFETY: map and key have the map's types.
        let pointer = unsafe { bpf_map_lookup_elem(map, (&raw const self.key).cast()) };
        if pointer.is_null() {
            return false;
        }
        let sock = Sock::new(pointer.cast());
        let bound = sock.bound_interface();
        let is_wanted = (bound == 0 || bound == self.interface)
            && (self.key.is_of_one_address() || sock.local_address() == self.exact)
            && self.is_permitted(SocketPointer::of(pointer));
        // SAFETY: the lookup holds a reference to the socket, which is released once.
        unsafe {
            let assigned = is_wanted && bpf_sk_assign(self.context.cast(), pointer, 0) == 0;
            bpf_sk_release(pointer);
            assigned
        }
    }

    /// Whether a socket may be the proxy's listener. Only strict mode requires the proxy's owner:
    /// iptables redirects to any socket on the port.
    #[inline(always)]
    fn is_permitted(&mut self, socket: SocketPointer) -> bool {
        if !self.policy.flags.contains(PolicyFlags::STRICT) {
            return true;
        }
        let is_proxy = self.policy.is_proxy(socket.owner());
        if !is_proxy {
            self.foreign = 1;
        }
        is_proxy
    }
}

/// Returns 1, which ends the loop, if the connection is assigned to the socket in `slot`.
unsafe extern "C" fn try_slot(slot: u64, search: *mut Search) -> i64 {
    // SAFETY: `assign` passes itself.
    let search = unsafe { &mut *search };
    if search.try_slot(slot) {
        search.found = 1;
        return 1;
    }
    0
}
