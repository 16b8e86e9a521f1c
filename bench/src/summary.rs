//! Quantiles.

use serde::{Deserialize, Serialize};

/// The median and the quartiles of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
    /// The number of numbers.
    pub count: usize,
}

impl Summary {
    /// Of at least one number.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Self {
        Self {
            median: quantile(numbers, 0.5),
            low: quantile(numbers, 0.25),
            high: quantile(numbers, 0.75),
            count: numbers.len(),
        }
    }
}

/// The `part` quantile of `numbers`, linearly interpolated. Zero if there are none.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an index into some thousands of numbers"
)]
pub(super) fn quantile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let position = part * last as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_numbers_are_between_the_quartiles() {
        let numbers: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&numbers);
        assert!((summary.median - 50.0).abs() < 1e-9);
        assert!((summary.low - 25.0).abs() < 1e-9);
        assert!((summary.high - 75.0).abs() < 1e-9);
        assert_eq!(summary.count, 101);
    }

    #[test]
    fn a_quantile_between_two_numbers_is_interpolated() {
        assert!((quantile(&[1.0, 2.0], 0.5) - 1.5).abs() < 1e-9);
        assert!((quantile(&[7.0], 0.99) - 7.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).abs() < 1e-9);
    }
}
