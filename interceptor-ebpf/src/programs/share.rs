//! The part of the shared tables that one pod may use.

use interceptor_ebpf::Share;

use super::maps::SHARE;

/// The share of every pod. Userspace changes it with the number of pods.
#[inline(always)]
pub(crate) fn of_pod() -> Share {
    match SHARE.get(0) {
        // Zero before the first pod.
        Some(share) if share.stand_ins != 0 => *share,
        _ => Share::SMALLEST,
    }
}
