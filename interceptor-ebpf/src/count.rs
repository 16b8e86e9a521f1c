//! The counters of verdicts and refusals, and the index of each.

use crate::{NetnsCookie, Reason, Refusal, Verdict, layout::map_type};

/// The direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a socket of the pod.
    Outbound,
    /// From outside the pod.
    Inbound,
}

/// What one counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The direction of the connections.
    pub direction: Direction,
    /// The result of the connections.
    pub outcome: Outcome,
}

/// The result of a connection. A refused connection was also counted as captured, unless it goes to
/// an unknown stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules do not redirect the connection.
    Passed(Reason),
    /// The rules redirect the connection to the proxy.
    Captured(Reason),
    /// The connection fails.
    Refused(Refusal),
}

const REASONS: usize = Reason::ALL.len();
const OUTCOMES: usize = 2 * REASONS + Refusal::ALL.len();

/// The number of counters.
pub const COUNTS: usize = 2 * OUTCOMES;

impl Counted {
    /// The counter of a verdict.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(direction: Direction, verdict: &Verdict) -> Self {
        let outcome = match *verdict {
            Verdict::Pass(reason) => Outcome::Passed(reason),
            Verdict::Capture(_, reason) => Outcome::Captured(reason),
        };
        Self { direction, outcome }
    }

    /// The counter of a refusal.
    #[inline(always)]
    #[must_use]
    pub const fn refusal(direction: Direction, refusal: Refusal) -> Self {
        let outcome = Outcome::Refused(refusal);
        Self { direction, outcome }
    }

    /// The index in [`Counts::numbers`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        let outcome = match self.outcome {
            Outcome::Passed(reason) => reason as usize,
            Outcome::Captured(reason) => REASONS + reason as usize,
            Outcome::Refused(refusal) => 2 * REASONS + refusal as usize,
        };
        self.direction as usize * OUTCOMES + outcome
    }

    /// All counters, in the order of their indices.
    pub fn all() -> impl Iterator<Item = Self> {
        [Direction::Outbound, Direction::Inbound]
            .into_iter()
            .flat_map(|direction| Outcome::all().map(move |outcome| Self { direction, outcome }))
    }
}

impl Outcome {
    fn all() -> impl Iterator<Item = Self> {
        let passed = Reason::ALL.into_iter().map(Self::Passed);
        let captured = Reason::ALL.into_iter().map(Self::Captured);
        passed
            .chain(captured)
            .chain(Refusal::ALL.into_iter().map(Self::Refused))
    }
}

map_type! {
    /// The counters of one pod, of all CPUs.
    pub struct PodCounts: 968 {
        /// The pod's network namespace; 0 if the counters were never used. For userspace only.
        pub netns: NetnsCookie,
        /// The counters, by [`Counted::index`].
        pub numbers: [u64; COUNTS],
    }
}

map_type! {
    /// The counters of all pods, of one CPU. If an index changes its meaning, increase the revision of
    /// this map and that of [`PodCounts`] (`interceptor/src/bpf/layout.rs`).
    pub struct Counts: 968 {
        /// With attachments at two cgroups: the cookie of the socket whose connection has passed
        /// the inner one, and not reached the outer one yet; 0 if there is none.
        pub passed: u64,
        /// The counters, by [`Counted::index`].
        pub numbers: [u64; COUNTS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_index() {
        let indices = Counted::all().map(Counted::index);
        assert!(indices.eq(0..COUNTS));
    }
}
