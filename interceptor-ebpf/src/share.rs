//! The part of the shared tables that one pod may use.
//!
//! The tables are divided by the number of attached pods, rounded up to a power of two. A
//! pod that needs more than its share evicts its own oldest entries, never those of another pod.

use crate::layout::map_type;

/// The maximum number of captured pods per machine.
pub const MAX_PODS: u32 = 4096;

/// The number of stand-ins of all pods. (The hash buckets alone use 16 bytes each.)
pub const STAND_INS_IN_ALL: u32 = 1 << 18;

/// The number of registered listening sockets of all pods.
pub const LISTENERS_IN_ALL: u32 = 1 << 18;

/// The maximum number of stand-ins of one pod.
pub const MAX_STAND_INS: u32 = 1 << 14;

/// The maximum number of registered listening sockets per port and kind of address
/// ([`crate::ListenerAddress`]).
pub const MAX_LISTENER_SLOTS: u16 = 1 << 8;

/// At least the number of kinds of addresses times the number of ports with registered listeners.
const RINGS_PER_POD: u32 = 16;

map_type! {
    /// The share of every pod. Both numbers are powers of two.
    #[derive(PartialEq, Eq)]
    pub struct Share: 8 {
        /// The number of stand-ins of a pod. One more evicts the oldest.
        pub stand_ins: u32,
        /// The number of registered listening sockets per port and kind of address.
        pub listener_slots: u32,
    }
}

impl Share {
    /// The share of each of `pods` pods, at most [`MAX_PODS`].
    #[must_use]
    pub fn of(pods: u32) -> Self {
        let pods = pods.clamp(1, MAX_PODS).next_power_of_two();
        Self {
            stand_ins: MAX_STAND_INS.min(STAND_INS_IN_ALL / pods),
            listener_slots: u32::from(MAX_LISTENER_SLOTS)
                .min(LISTENERS_IN_ALL / pods / RINGS_PER_POD),
        }
    }

    /// The smallest share.
    pub const SMALLEST: Self = Self {
        stand_ins: STAND_INS_IN_ALL / MAX_PODS,
        listener_slots: LISTENERS_IN_ALL / MAX_PODS / RINGS_PER_POD,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LISTENER_ADDRESSES, MAX_LISTENER_PORTS};

    #[test]
    fn the_shares_of_all_pods_fit_into_the_tables() {
        assert!(LISTENER_ADDRESSES * MAX_LISTENER_PORTS <= RINGS_PER_POD as usize);
        for pods in 1..=MAX_PODS {
            let share = Share::of(pods);
            assert!(u64::from(share.stand_ins) * u64::from(pods) <= STAND_INS_IN_ALL.into());
            let listeners = u64::from(share.listener_slots) * u64::from(RINGS_PER_POD);
            assert!(listeners * u64::from(pods) <= LISTENERS_IN_ALL.into());
            assert!(share.stand_ins.is_power_of_two() && share.listener_slots.is_power_of_two());
            assert!(share.listener_slots >= 2, "an older and a newer half");
        }
    }

    #[test]
    fn few_pods_have_the_most_and_many_the_least() {
        let most = Share {
            stand_ins: MAX_STAND_INS,
            listener_slots: MAX_LISTENER_SLOTS.into(),
        };
        assert_eq!(Share::of(0), most);
        assert_eq!(Share::of(16), most);
        assert_eq!(Share::of(110).stand_ins, 2048);
        assert_eq!(Share::of(MAX_PODS), Share::SMALLEST);
        assert_eq!(Share::of(u32::MAX), Share::SMALLEST);
    }
}
