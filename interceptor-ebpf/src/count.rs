//! What is counted of the verdicts, and where each number is.

use crate::{Reason, Refusal, Verdict, layout::map_type};

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A socket of the pod makes it.
    Outbound,
    /// It comes in from outside the pod.
    Inbound,
}

/// What is counted by one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which way.
    pub direction: Direction,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a connection. One that is refused has been captured before, unless it goes to an
/// unknown stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules let it pass.
    Passed(Reason),
    /// The rules capture it.
    Captured(Reason),
    /// It comes to nothing.
    Refused(Refusal),
}

const REASONS: usize = Reason::ALL.len();
const OUTCOMES: usize = 2 * REASONS + Refusal::ALL.len();

/// How many numbers there are.
pub const COUNTS: usize = 2 * OUTCOMES;

impl Counted {
    /// Counts a verdict.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(direction: Direction, verdict: &Verdict) -> Self {
        let outcome = match *verdict {
            Verdict::Pass(reason) => Outcome::Passed(reason),
            Verdict::Capture(_, reason) => Outcome::Captured(reason),
        };
        Self { direction, outcome }
    }

    /// Counts a refusal.
    #[inline(always)]
    #[must_use]
    pub const fn refusal(direction: Direction, refusal: Refusal) -> Self {
        let outcome = Outcome::Refused(refusal);
        Self { direction, outcome }
    }

    /// Where its number is.
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

    /// Everything that is counted, in the order of the numbers.
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
    /// What one processor has counted. A number that comes to mean something else takes another
    /// revision of the map (`interceptor/src/bpf/layout.rs`).
    pub struct Counts: 872 {
        /// The cookie of the socket whose connection has passed the first of two places, and is about
        /// to be seen at the second; 0 if there is none.
        pub passed: u64,
        /// The numbers.
        pub numbers: [u64; COUNTS],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_place() {
        let indices = Counted::all().map(Counted::index);
        assert!(indices.eq(0..COUNTS));
    }
}
