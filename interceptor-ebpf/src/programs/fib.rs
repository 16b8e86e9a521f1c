//! Tells userspace where the kernel keeps the network namespace that it is in, and the state of its
//! routing tables.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_task;
use interceptor_ebpf::{FibGeneration, NetnsState};

use super::{kernel_memory::NetPointer, maps::FIB};

/// Never attached: run once, by `BPF_PROG_TEST_RUN`, in the task that wants to know. Answers 1 if
/// that worked. (aya's macro for tracepoints would answer 0 in any case.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub(crate) extern "C" fn icept_fib(_context: *mut c_void) -> i32 {
    // SAFETY: the helper takes nothing and returns the address of the running task.
    let task = unsafe { bpf_get_current_task() };
    let net = NetPointer::of_task(task);
    let state = NetnsState {
        net: net.address(),
        fib: FibGeneration {
            rt_genid: net.rt_genid(),
            fib6_sernum: net.fib6_sernum(),
            rt6_entries: net.rt6_entries(),
        },
        zero: 0,
    };
    i32::from(FIB.set(0, state, 0).is_ok())
}
