//! What one pod may use of the tables that all pods share.
//!
//! The tables are divided by the number of attached pods, rounded up to a power of two. Whatever
//! one pod does, every other pod has its share: a pod that needs more evicts its own oldest entries.

use crate::layout::map_type;

/// How many pods one machine holds.
pub const MAX_PODS: u32 = 4096;

/// How many stand-ins all pods have together. (The buckets alone take 16 bytes each.)
pub const STAND_INS_IN_ALL: u32 = 1 << 18;

/// How many listening sockets of all pods are noted.
pub const LISTENERS_IN_ALL: u32 = 1 << 18;

/// How many stand-ins one pod has at most.
pub const MAX_STAND_INS: u32 = 1 << 14;

/// How many listening sockets of one kind of address ([`crate::ListenerAddress`]) and one port are
/// noted at most.
pub const MAX_LISTENER_SLOTS: u16 = 1 << 8;

/// At least as many as a pod has kinds of addresses and ports whose listeners are noted.
const RINGS_PER_POD: u32 = 16;

map_type! {
    /// The share of every pod. Both numbers are powers of two.
    #[derive(PartialEq, Eq)]
    pub struct Share: 8 {
        /// How many stand-ins a pod has. Where it needs one more, its oldest goes.
        pub stand_ins: u32,
        /// How many listening sockets are noted for each kind of address and each port.
        pub listener_slots: u32,
    }
}

impl Share {
    /// The share of each of `pods` pods; that of [`MAX_PODS`] if they are more.
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
