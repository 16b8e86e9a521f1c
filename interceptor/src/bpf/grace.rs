//! Waits for programs that still run with data that was just replaced.

use std::{io, thread, time::Duration};

use tracing::debug;

/// `MEMBARRIER_CMD_GLOBAL`
const GLOBAL: libc::c_long = 1;

/// Longer than any program runs.
const FALLBACK_WAIT: Duration = Duration::from_millis(100);

/// Returns when every program that runs now has finished: programs run in RCU read-side sections, and
/// `membarrier(2)` waits for those (`synchronize_rcu` in `kernel/sched/membarrier.c`). If the kernel
/// does not support that (`nohz_full`), sleeps instead.
pub(crate) fn wait_for_running_programs() {
    // SAFETY: the command takes two zeros and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        debug!(
            "membarrier(2) is not available, sleeping instead: {}",
            io::Error::last_os_error()
        );
        thread::sleep(FALLBACK_WAIT);
    }
}
