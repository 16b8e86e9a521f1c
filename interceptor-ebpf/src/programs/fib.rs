//! Reports to userspace the address of the current network namespace's `struct net`, and the state
//! of its routing tables.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_task;
use interceptor_ebpf::{FibGeneration, NetnsState};

use super::{kernel_memory::NetPointer, maps::FIB};

/// Never attached: userspace runs it by `BPF_PROG_TEST_RUN` in the namespace. Returns 1 on success.
/// (aya's macro for tracepoints would always return 0.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub(crate) extern "C" fn icept_fib(_context: *mut c_void) -> i32 {
    // SAFETY: the helper has no arguments and returns the address of the running task.
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
