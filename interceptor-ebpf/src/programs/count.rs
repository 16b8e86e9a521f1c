//! Counters of verdicts and refusals, for the agent's metrics: of the node and of each pod. For each
//! connection of a pod, two lookups in arrays.

use core::arch::asm;

use interceptor_ebpf::{COUNTS, Counted};

use super::{context::SockAddr, maps, pod::Pod};

/// Adds one to a counter of the node and to that of the pod.
#[inline(always)]
pub(crate) fn add(pod: Pod, counted: Counted) {
    let index = icept_opaque(counted.index());
    if let Some(counts) = maps::COUNTS.get_ptr_mut(0) {
        // SAFETY: the value lives as long as the map.
        increment(unsafe { &raw mut (*counts).numbers }, index);
    }
    if let Some(counts) = maps::POD_COUNTS.get_ptr_mut(pod.policy.counters.into()) {
        // SAFETY: as above.
        increment(unsafe { &raw mut (*counts).numbers }, index);
    }
}

/// Adds one to a number. (One instruction, as another program may interrupt this one on the same CPU.
/// Rust's atomics are missing on this target, which for Rust has no compare-and-swap.)
#[inline(always)]
fn increment(numbers: *mut [u64; COUNTS], index: usize) {
    if index >= COUNTS {
        return;
    }
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

/// Whether the call has just passed our program at an inner cgroup.
#[inline(always)]
pub(crate) fn is_seen_again(call: &SockAddr) -> bool {
    let Some(counts) = maps::COUNTS.get_ptr_mut(0) else {
        return false;
    };
    let cookie = call.cookie();
    // SAFETY: the value lives as long as the map.
    let passed = unsafe { &raw mut (*counts).passed };
    // SAFETY: as above; only programs on this CPU write it.
    let is_again = unsafe { passed.read_volatile() } == cookie;
    // SAFETY: as above.
    unsafe { passed.write_volatile(if is_again { 0 } else { cookie }) };
    is_again
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
