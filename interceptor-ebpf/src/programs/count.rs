//! Verdicts counted for the agent's metrics: one look-up in a map of this processor's own, for each
//! connection of a pod.
//!
//! Where a pod's sockets are seen at kubepods and again at the root, the first to see a connection
//! counts it. What that has captured or refused shows: by the stand-in, or by the errno. What has
//! passed does not, so the socket is noted until the second has seen it: right after, in the same
//! system call. (If another task comes between, or a socket is seen at the root alone and does the
//! same again at once, the number is off by one.)

use core::arch::asm;

use interceptor_ebpf::{COUNTS, Counted, Counts, Direction, Policy, PolicyFlags, Refusal, Verdict};

use super::{
    context::{HookResult, SockAddr, is_refused, refuse as fail},
    maps,
};

/// Counts the verdict on what a socket of a pod makes.
#[inline(always)]
pub(crate) fn outbound(call: &SockAddr, policy: &Policy, verdict: &Verdict) {
    let Some(counts) = maps::COUNTS.get_ptr_mut(0) else {
        return;
    };
    let is_counted = policy.flags.contains(PolicyFlags::SEEN_TWICE)
        && match verdict {
            Verdict::Pass(_) => is_seen_again(call, counts),
            Verdict::Capture(..) => is_refused(),
        };
    if !is_counted {
        add(counts, Counted::verdict(Direction::Outbound, verdict));
    }
}

/// Whether it has passed a program of ours in an inner cgroup just now.
#[inline(always)]
fn is_seen_again(call: &SockAddr, counts: *mut Counts) -> bool {
    let cookie = call.cookie();
    // SAFETY: the value is there for as long as the map is.
    let passed = unsafe { &raw mut (*counts).passed };
    // SAFETY: as above; only programs on this processor write it.
    let is_again = unsafe { passed.read_volatile() } == cookie;
    // SAFETY: as above.
    unsafe { passed.write_volatile(if is_again { 0 } else { cookie }) };
    is_again
}

/// Counts the verdict on what comes in from outside a pod.
#[inline(always)]
pub(crate) fn inbound(verdict: &Verdict) {
    count(Counted::verdict(Direction::Inbound, verdict));
}

/// Counts something that comes to nothing.
#[inline(always)]
pub(crate) fn refusal(direction: Direction, refusal: Refusal) {
    count(Counted::refusal(direction, refusal));
}

/// Refuses a call, and counts it unless it has been refused.
#[inline(always)]
pub(crate) fn refuse(why: Refusal, errno: u32) -> HookResult {
    if !is_refused() {
        refusal(Direction::Outbound, why);
    }
    fail(errno)
}

#[inline(always)]
fn count(counted: Counted) {
    if let Some(counts) = maps::COUNTS.get_ptr_mut(0) {
        add(counts, counted);
    }
}

/// (Another program may come between on the same processor, so it is one instruction that adds.
/// Rust's atomics do not offer it here: the target has no compare-and-swap in Rust's eyes.)
#[inline(always)]
fn add(counts: *mut Counts, counted: Counted) {
    let index = icept_opaque(counted.index());
    if index >= COUNTS {
        return;
    }
    // SAFETY: the value is there for as long as the map is.
    let numbers = unsafe { &raw mut (*counts).numbers };
    // SAFETY: the index is less than the length of the array.
    let number = unsafe { numbers.cast::<u64>().add(index) };
    // SAFETY: the number is aligned, and is only ever changed atomically.
    unsafe {
        asm!(
            "lock *(u64 *)({number} + 0) += {one}",
            number = in(reg) number,
            one = in(reg) 1_u64,
        );
    }
}

/// Has the verifier forget what it knows of `index`, which else it would follow through all that comes
/// after, for each verdict anew: what a global function answers may be anything.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_opaque(index: usize) -> usize {
    let copy;
    // SAFETY: a copy. It keeps the compiler from knowing the answer.
    unsafe {
        asm!(
            "{copy} = {index}",
            copy = lateout(reg) copy,
            index = in(reg) index,
            options(pure, nomem, nostack),
        );
    }
    copy
}
