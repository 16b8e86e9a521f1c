//! From counters to rates.

use std::{cmp::Ordering, collections::HashMap};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    observe::flow::Pod,
    outcome::{ConnectionCount, Direction, Verdict},
};

/// Something of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct ByVerdict<T> {
    pub(super) captured: T,
    pub(super) passed: T,
    pub(super) refused: T,
}

/// The counters of a pod since it was attached.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodCounts {
    pod: Pod,
    outbound: ByVerdict<u64>,
    inbound: ByVerdict<u64>,
}

/// The connections of a pod per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PodRates {
    pub(super) pod: Pod,
    pub(super) outbound: ByVerdict<f64>,
    pub(super) inbound: ByVerdict<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    #[default]
    Total,
    Captured,
    Passed,
    Refused,
    Outbound,
    Inbound,
    Pod,
}

impl PodCounts {
    pub(super) fn new(pod: Pod, counts: &[ConnectionCount]) -> Self {
        let of = |direction| {
            let mut sums = ByVerdict::default();
            for count in counts.iter().filter(|count| count.direction == direction) {
                *sums.of(count.verdict) += count.count;
            }
            sums
        };
        Self {
            pod,
            outbound: of(Direction::Outbound),
            inbound: of(Direction::Inbound),
        }
    }
}

impl<T> ByVerdict<T> {
    const fn of(&mut self, verdict: Verdict) -> &mut T {
        match verdict {
            Verdict::Captured => &mut self.captured,
            Verdict::Passed => &mut self.passed,
            Verdict::Refused => &mut self.refused,
        }
    }
}

impl ByVerdict<u64> {
    /// Counters that are lower than before are those of a new attach, which started with 0.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the connections of one interval are far below 2^52"
    )]
    fn per_second(self, before: Self, seconds: f64) -> ByVerdict<f64> {
        let rate = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now) as f64 / seconds;
        ByVerdict {
            captured: rate(self.captured, before.captured),
            passed: rate(self.passed, before.passed),
            refused: rate(self.refused, before.refused),
        }
    }
}

impl ByVerdict<f64> {
    pub(super) fn total(self) -> f64 {
        self.captured + self.passed + self.refused
    }
}

impl PodRates {
    pub(super) fn total(&self) -> f64 {
        self.outbound.total() + self.inbound.total()
    }
}

/// The rates of the pods that are attached now. A pod that was not attached before started with 0.
pub(super) fn rates(before: &[PodCounts], now: &[PodCounts], seconds: f64) -> Vec<PodRates> {
    let before: HashMap<_, _> = before
        .iter()
        .map(|counts| (counts.pod.netns_cookie, counts))
        .collect();
    let rate = |counts: &PodCounts| {
        let earlier = before.get(&counts.pod.netns_cookie);
        let outbound = earlier.map_or_else(ByVerdict::default, |counts| counts.outbound);
        let inbound = earlier.map_or_else(ByVerdict::default, |counts| counts.inbound);
        PodRates {
            pod: counts.pod.clone(),
            outbound: counts.outbound.per_second(outbound, seconds),
            inbound: counts.inbound.per_second(inbound, seconds),
        }
    };
    now.iter().map(rate).collect()
}

impl Sort {
    pub(super) fn apply(self, pods: &mut [PodRates]) {
        pods.sort_by(|a, b| {
            let highest_first = self.key(b).total_cmp(&self.key(a));
            let by_name = a.pod.display_name().cmp(&b.pod.display_name());
            match self {
                Self::Pod => Ordering::Equal,
                _ => highest_first,
            }
            .then(by_name)
        });
    }

    fn key(self, pod: &PodRates) -> f64 {
        let (outbound, inbound) = (pod.outbound, pod.inbound);
        match self {
            Self::Total | Self::Pod => pod.total(),
            Self::Captured => outbound.captured + inbound.captured,
            Self::Passed => outbound.passed + inbound.passed,
            Self::Refused => outbound.refused + inbound.refused,
            Self::Outbound => outbound.total(),
            Self::Inbound => inbound.total(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn counts(cookie: u64, numbers: &[(Direction, Verdict, u64)]) -> PodCounts {
        let pod = Pod {
            netns_cookie: cookie,
            netns: format!("/run/netns/{cookie}"),
            ..Pod::default()
        };
        let counts: Vec<_> = numbers
            .iter()
            .map(|(direction, verdict, count)| ConnectionCount {
                direction: *direction,
                verdict: *verdict,
                reason: "any".to_owned(),
                count: *count,
            })
            .collect();
        PodCounts::new(pod, &counts)
    }

    const OUT: (Direction, Verdict) = (Direction::Outbound, Verdict::Captured);
    const IN: (Direction, Verdict) = (Direction::Inbound, Verdict::Refused);

    /// Pod 1 has two rates, pod 2 was attached again, pod 3 is new.
    pub(in crate::cli::top) fn example() -> Vec<PodRates> {
        let of = |(direction, verdict), count| (direction, verdict, count);
        let before = [
            counts(1, &[of(OUT, 100), of(IN, 7)]),
            counts(2, &[of(OUT, 50)]),
        ];
        let now = [
            counts(1, &[of(OUT, 120), of(OUT, 20), of(IN, 8)]),
            counts(2, &[of(OUT, 30)]),
            counts(3, &[of(IN, 4)]),
        ];
        rates(&before, &now, 2.0)
    }

    #[test]
    fn rates_are_of_the_connections_between_two_readings() {
        let rates = example();
        let close = |rate: f64, expected: f64| (rate - expected).abs() < 1e-9;
        assert!(close(rates[0].outbound.captured, 20.0), "{rates:?}");
        assert!(close(rates[0].inbound.refused, 0.5), "{rates:?}");
        assert!(close(rates[1].total(), 15.0), "{rates:?}");
        assert!(close(rates[2].inbound.total(), 2.0), "{rates:?}");
    }

    #[test]
    fn pods_are_sorted_by_the_chosen_column() {
        for (sort, order) in [
            (Sort::Total, [1, 2, 3]),
            (Sort::Captured, [1, 2, 3]),
            (Sort::Refused, [3, 1, 2]),
            (Sort::Inbound, [3, 1, 2]),
            (Sort::Pod, [1, 2, 3]),
        ] {
            let mut rates = example();
            sort.apply(&mut rates);
            let cookies: Vec<_> = rates.iter().map(|pod| pod.pod.netns_cookie).collect();
            assert_eq!(cookies, order, "{sort:?}");
        }
    }
}
