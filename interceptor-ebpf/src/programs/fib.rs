//! Tells userspace the state of the routing tables of the network namespace that it is in.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_task;

use super::{kernel_memory::fib_generation_of_task, maps::FIB};

/// Never attached: run once, by `BPF_PROG_TEST_RUN`, in the task that wants to know. Answers 1 if
/// that worked. (aya's macro for tracepoints would answer 0 in any case.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub(crate) extern "C" fn icept_fib(_context: *mut c_void) -> i32 {
    // SAFETY: the helper takes nothing and returns the address of the running task.
    let task = unsafe { bpf_get_current_task() };
    i32::from(FIB.set(0, fib_generation_of_task(task), 0).is_ok())
}
