//! Counters of verdicts, for the agent's metrics: one lookup in a per-CPU map for each connection
//! of a pod.
//!
//! If the programs run for a socket at kubepods and again at the root, the first one counts the
//! connection. The second recognizes a captured connection by the stand-in, and a refused one by
//! the errno. For one that passes, the first records the socket until the second has run, right
//! after, in the same system call. (If another task runs in between, or a socket that is attached
//! at the root alone connects twice in a row, the counter is off by one.)

use core::arch::asm;

use interceptor_ebpf::{COUNTS, Counted, Counts, Direction, Policy, PolicyFlags, Refusal, Verdict};

use super::{
    context::{HookResult, SockAddr, is_refused, refuse as fail},
    maps,
};

/// Counts the verdict on a connection or query of a pod's socket.
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

/// Whether the call has just passed our program at an inner cgroup.
#[inline(always)]
fn is_seen_again(call: &SockAddr, counts: *mut Counts) -> bool {
    let cookie = call.cookie();
    // SAFETY: the value lives as long as the map.
    let passed = unsafe { &raw mut (*counts).passed };
    // SAFETY: as above; only programs on this CPU write it.
    let is_again = unsafe { passed.read_volatile() } == cookie;
    // SAFETY: as above.
    unsafe { passed.write_volatile(if is_again { 0 } else { cookie }) };
    is_again
}

/// Counts the verdict on a connection from outside the pod.
#[inline(always)]
pub(crate) fn inbound(verdict: &Verdict) {
    count(Counted::verdict(Direction::Inbound, verdict));
}

/// Counts a refused connection.
#[inline(always)]
pub(crate) fn refusal(direction: Direction, refusal: Refusal) {
    count(Counted::refusal(direction, refusal));
}

/// Refuses a call, and counts it unless a program at an inner cgroup has refused it.
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

/// (One instruction, as another program may interrupt this one on the same CPU. Rust's atomics are
/// missing on this target, which for Rust has no compare-and-swap.)
#[inline(always)]
fn add(counts: *mut Counts, counted: Counted) {
    let index = icept_opaque(counted.index());
    if index >= COUNTS {
        return;
    }
    // SAFETY: the value lives as long as the map.
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

/// Makes the value of `index` unknown to the verifier, as is the return value of every global
/// function (cf. `core::hint::black_box`). Otherwise it would verify all following code once for each
/// verdict.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_opaque(index: usize) -> usize {
    let copy;
    // SAFETY: a copy, whose value the compiler cannot know.
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
