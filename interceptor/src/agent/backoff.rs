//! Exponential backoff: each delay is twice the one before, up to a maximum.

use std::time::Duration;

/// The delays between the attempts of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The delay before the retry that follows `retries` earlier retries.
    pub(super) fn delay(self, retries: u32) -> Duration {
        let factor = 2_u32.saturating_pow(retries);
        self.first.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        let delays = [0, 1, 2, 3, u32::MAX].map(|retries| backoff.delay(retries).as_millis());
        assert_eq!(delays, [200, 400, 800, 1000, 1000]);
    }
}
