//! TPROXY: the proxy's connection to the app, which comes from the client's own address, is told from
//! the client's.
//!
//! It bears a mark, which `sk_lookup` does not see. So the mark is noted as the SYN goes out, and
//! forgotten as soon as the connection stands or is over.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use interceptor_ebpf::{MarkedKey, PolicyFlags};

use super::{context::SockOps, maps::MARKED, pod::Pod};

/// How long a SYN may be under way, in nanoseconds. Over `lo` it arrives at once, unless the app's
/// backlog is full. This is for connections whose end nobody tells us of, because another program
/// has cleared the callback flag.
const UNDER_WAY: u64 = 10_000_000_000;

/// A socket of the pod sends its SYN.
#[inline(always)]
pub(crate) fn note(socket: &SockOps) {
    let Some(pod) = Pod::of(socket.netns()) else {
        return;
    };
    let policy = pod.policy;
    if !policy.flags.contains(PolicyFlags::TPROXY) || socket.mark() != policy.mark {
        return;
    }
    socket.watch_states();
    // SAFETY: the helper takes nothing.
    let until = unsafe { bpf_ktime_get_ns() } + UNDER_WAY;
    // Without room the app is not reached, but the proxy, which reports a loop.
    let _noted = MARKED.insert(key(pod, socket), until, 0);
}

/// A connection stands, or has changed its state.
#[inline(always)]
pub(crate) fn forget(socket: &SockOps) {
    let Some(pod) = Pod::of(socket.netns()) else {
        return;
    };
    if pod.policy.flags.contains(PolicyFlags::TPROXY) {
        let _gone = MARKED.remove(key(pod, socket));
    }
}

#[inline(always)]
fn key(pod: Pod, socket: &SockOps) -> MarkedKey {
    MarkedKey::new(
        pod.netns,
        (socket.local_address(), socket.local_port()),
        (socket.remote_address(), socket.remote_port()),
    )
}

/// Whether the connection has been noted.
#[inline(always)]
pub(crate) fn is_marked(key: MarkedKey) -> bool {
    // SAFETY: the map does not preallocate; the helper takes nothing.
    unsafe {
        MARKED
            .get(key)
            .is_some_and(|until| *until > bpf_ktime_get_ns())
    }
}
