//! Reports the outcome of each connection of a pod: to the counters, and to observers.
//!
//! If the programs run for a socket at kubepods and again at the root, the first one reports the
//! connection. The second recognizes a captured connection by the stand-in, and a refused one by
//! the errno. For one that passes, the first records the socket until the second has run, right
//! after, in the same system call. (If another task runs in between, or a socket that is attached
//! at the root alone connects twice in a row, the counter is off by one.)

use interceptor_ebpf::{
    Counted, Direction, Listener, Outbound, Outcome, PolicyFlags, Reason, Refusal, Verdict,
};

use super::{
    context::{HookResult, SockAddr, is_refused, refuse as fail},
    count,
    events::{self, Ends, Origin},
    pod::Pod,
};

/// Counts the verdict on a connection or query of a pod's socket, and reports one that passes.
#[inline(always)]
pub(crate) fn outbound(call: &SockAddr, pod: Pod, facts: &Outbound, verdict: &Verdict) {
    let is_reported = pod.policy.flags.contains(PolicyFlags::SEEN_TWICE)
        && match verdict {
            Verdict::Pass(_) => count::is_seen_again(call),
            Verdict::Capture(..) => is_refused(),
        };
    if is_reported {
        return;
    }
    let counted = Counted::verdict(Direction::Outbound, verdict);
    count::add(pod, counted);
    if let Verdict::Pass(_) = verdict
        && events::are_observed()
    {
        events::write(pod.netns, facts.into(), origin(facts), counted, 0);
    }
}

/// Reports that a connection or query of a pod's socket is captured.
#[inline(always)]
pub(crate) fn captured(pod: Pod, facts: &Outbound, listener: Listener, reason: Reason) {
    if events::are_observed() && !is_refused() {
        let counted = Counted {
            direction: Direction::Outbound,
            outcome: Outcome::Captured(reason),
        };
        let port = listener.port(pod.policy);
        events::write(pod.netns, facts.into(), origin(facts), counted, port);
    }
}

/// A call that is refused: why, and its errno.
pub(crate) struct Refused(pub(crate) Refusal, pub(crate) u32);

/// Refuses a call, and reports it unless a program at an inner cgroup has refused it.
#[inline(always)]
pub(crate) fn refuse(call: &SockAddr, pod: Pod, refused: Refused) -> HookResult {
    let ends = Ends {
        source: call.bound_address(),
        source_port: 0,
        destination: call.address(),
        port: call.port(),
    };
    refuse_between(call, pod, ends, refused)
}

/// The same for a call without an address.
#[inline(always)]
pub(crate) fn refuse_between(
    call: &SockAddr,
    pod: Pod,
    ends: Ends,
    Refused(why, errno): Refused,
) -> HookResult {
    if !is_refused() {
        let counted = Counted::refusal(Direction::Outbound, why);
        count::add(pod, counted);
        if events::are_observed() {
            let origin = Origin::Process(call.socket().owner(), call.transport());
            events::write(pod.netns, ends, origin, counted, 0);
        }
    }
    fail(errno)
}

/// Counts the verdict on a connection from outside the pod, and reports one that passes.
#[inline(always)]
pub(crate) fn inbound(pod: Pod, ends: Ends, verdict: &Verdict) {
    let counted = Counted::verdict(Direction::Inbound, verdict);
    count::add(pod, counted);
    if let Verdict::Pass(_) = verdict {
        event(pod, ends, counted, 0);
    }
}

/// Reports that a connection from outside the pod is captured.
#[inline(always)]
pub(crate) fn captured_inbound(pod: Pod, ends: Ends, listener: Listener, reason: Reason) {
    let counted = Counted {
        direction: Direction::Inbound,
        outcome: Outcome::Captured(reason),
    };
    event(pod, ends, counted, listener.port(pod.policy));
}

/// Reports that the packet of a connection is refused.
#[inline(always)]
pub(crate) fn refusal(pod: Pod, ends: Ends, direction: Direction, why: Refusal) {
    let counted = Counted::refusal(direction, why);
    count::add(pod, counted);
    event(pod, ends, counted, 0);
}

#[inline(always)]
fn event(pod: Pod, ends: Ends, counted: Counted, proxy_port: u16) {
    if events::are_observed() {
        events::write(pod.netns, ends, Origin::Packet, counted, proxy_port);
    }
}

#[inline(always)]
const fn origin(facts: &Outbound) -> Origin {
    Origin::Process(facts.owner, facts.transport)
}
