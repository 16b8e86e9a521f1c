//! `sk_lookup`: a new connection finds its listening socket. One instance per pod.
//!
//! What this hook cannot deliver it drops, which the client sees as a refused connection: it is the
//! last line, and nothing captured goes past it.

use aya_ebpf::{macros::sk_lookup, programs::SkLookupContext};
use interceptor_ebpf::{
    Address, Flow, Inbound, Listener, ListenerKey, SLOTS_PER_LISTENER, StandIn, StandInRange,
    Verdict, decide,
};

use super::{
    context::{IPPROTO_TCP, SkLookup},
    listeners::candidates,
    maps::{LISTENER_SLOTS, LISTENERS, NETNS},
    pod::Pod,
    stand_ins,
};

const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;

#[sk_lookup]
pub(crate) fn icept_lookup(context: SkLookupContext) -> u32 {
    let packet = SkLookup::new(context.lookup);
    if packet.protocol() != IPPROTO_TCP {
        return SK_PASS;
    }
    let Some(pod) = Pod::of(NETNS.load()) else {
        return SK_PASS;
    };
    let local = StandIn {
        address: packet.local_address(),
        port: packet.local_port(),
    };
    let from_pod = pod.is_own(packet.remote_address());
    let delivered = if StandInRange::contains(local.address) {
        // Neighbours on the link can send to the IPv6 range, which is local: it is the pod's own.
        from_pod && deliver_captured(&context, pod, local)
    } else if from_pod {
        return SK_PASS;
    } else {
        let (destination, port) = (local.address, local.port);
        match decide(pod.policy, &pod, &Flow::Inbound(Inbound { destination, port })) {
            Verdict::Pass(_) => return SK_PASS,
            Verdict::Capture(listener, _) => deliver(&context, pod, listener, destination),
        }
    };
    if delivered { SK_PASS } else { SK_DROP }
}

/// A connection that `connect` has taken to a stand-in: REDIRECT would have sent it to localhost.
#[inline(always)]
fn deliver_captured(context: &SkLookupContext, pod: Pod, stand_in: StandIn) -> bool {
    let Some(destination) = stand_ins::resolve(pod.netns, stand_in) else {
        return false;
    };
    let Some(listener) = Listener::from_byte(destination.listener) else {
        return false;
    };
    deliver(context, pod, listener, stand_in.address.localhost())
}

/// Hands the connection to the proxy's listener that is bound to `exact` or to a wildcard.
#[inline(always)]
fn deliver(context: &SkLookupContext, pod: Pod, listener: Listener, exact: Address) -> bool {
    let port = listener.port(pod.policy);
    candidates(exact)
        .into_iter()
        .any(|address| assign(context, ListenerKey::new(pod.netns, address, port)))
}

/// Assigns one of the sockets on an address and port; the kernel itself chooses among the
/// `SO_REUSEPORT` group of the one that is found, and refuses one that is IPV6_V6ONLY for IPv4.
#[inline(always)]
fn assign(context: &SkLookupContext, first: ListenerKey) -> bool {
    let Some(slots) = LISTENER_SLOTS.get_ptr_mut(first) else {
        return false;
    };
    let mut key = first;
    // SAFETY: the entry lives as long as the program runs; a racing update only changes the hint.
    key.slot = unsafe { (*slots).hint } as u16;
    if LISTENERS.redirect_sk_lookup(context, key, 0).is_ok() {
        return true;
    }
    for slot in 0..SLOTS_PER_LISTENER {
        key.slot = slot;
        if LISTENERS.redirect_sk_lookup(context, key, 0).is_ok() {
            // SAFETY: as above.
            unsafe { (*slots).hint = slot.into() };
            return true;
        }
    }
    false
}
