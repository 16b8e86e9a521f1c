//! Whether a number has grown between the first and the last quarter of a run.
//!
//! The numbers vary: a single sample, or an average, says little. What is lost stays: it raises every
//! later sample. So a number has grown if even its smallest sample of the last
//! quarter is above the largest of the first, by more than a tolerance. Variation, which both quarters
//! have, does not do that; a leak does as soon as what it has lost in half a run exceeds the variation
//! of a quarter.

/// A value, and the part of the run after which it was sampled: 0 at the start, 1 at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) part: f64,
    pub(crate) value: f64,
}

/// How much larger a number may be without having grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    /// A part of the largest value of the first quarter.
    pub(crate) ratio: f64,
    /// In addition.
    pub(crate) absolute: f64,
    /// The number of samples of each quarter without which there is no comparison.
    pub(crate) samples: usize,
}

impl Tolerance {
    /// For counts that do not vary.
    pub(crate) const NONE: Self = Self {
        ratio: 0.0,
        absolute: 0.0,
        samples: 1,
    };
}

/// The smallest and the largest sample of a quarter, and the number of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quarter {
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Quarter {
    fn of(samples: &[Sample], contains: impl Fn(f64) -> bool) -> Option<Self> {
        let values = samples.iter().filter(|sample| contains(sample.part));
        let values: Vec<f64> = values.map(|sample| sample.value).collect();
        let [first, ..] = values[..] else {
            return None;
        };
        Some(Self {
            least: values.iter().copied().fold(first, f64::min),
            most: values.iter().copied().fold(first, f64::max),
            count: values.len(),
        })
    }
}

/// The first and the last quarter of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) first: Quarter,
    pub(crate) last: Quarter,
    pub(crate) has_grown: bool,
}

/// Compares the first with the last quarter; `None` if one of them has too few samples.
pub(crate) fn compare(samples: &[Sample], tolerance: Tolerance) -> Option<Comparison> {
    let first = Quarter::of(samples, |part| part <= 0.25)?;
    let last = Quarter::of(samples, |part| part >= 0.75)?;
    if first.count.min(last.count) < tolerance.samples {
        return None;
    }
    let limit = first.most * (1.0 + tolerance.ratio) + tolerance.absolute;
    Some(Comparison {
        first,
        last,
        has_grown: last.least > limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred samples of a run.
    fn samples(value: impl Fn(f64) -> f64) -> Vec<Sample> {
        (0..=100_u8)
            .map(|number| f64::from(number) / 100.0)
            .map(|part| Sample {
                part,
                value: value(part),
            })
            .collect()
    }

    fn has_grown(tolerance: Tolerance, value: impl Fn(f64) -> f64) -> bool {
        let compared = compare(&samples(value), tolerance);
        compared.expect("samples in both quarters").has_grown
    }

    /// Between -1 and 1, without a trend.
    fn noise(part: f64) -> f64 {
        (part * 1000.0).sin()
    }

    #[test]
    fn a_constant_has_not_grown() {
        assert!(!has_grown(Tolerance::NONE, |_| 7.0));
    }

    #[test]
    fn one_object_that_is_lost_is_growth() {
        let lost_in_the_middle = |part: f64| if part < 0.5 { 7.0 } else { 8.0 };
        assert!(has_grown(Tolerance::NONE, lost_in_the_middle));
    }

    #[test]
    fn variation_is_not_growth() {
        assert!(!has_grown(Tolerance::NONE, |part| 100.0 + 10.0 * noise(part)));
    }

    #[test]
    fn a_leak_below_variation_is_growth() {
        let leak = |part: f64| 100.0 + 60.0 * part + 10.0 * noise(part);
        assert!(has_grown(Tolerance::NONE, leak));
    }

    #[test]
    fn a_peak_at_the_end_is_not_growth() {
        let peak = |part: f64| {
            if (0.9..0.95).contains(&part) {
                50.0
            } else {
                7.0
            }
        };
        assert!(!has_grown(Tolerance::NONE, peak));
    }

    #[test]
    fn a_tolerance_permits_a_little_more() {
        let tolerance = Tolerance {
            ratio: 0.1,
            absolute: 5.0,
            samples: 3,
        };
        let step = |to: f64| move |part: f64| if part < 0.5 { 100.0 } else { to };
        assert!(!has_grown(tolerance, step(114.0)));
        assert!(has_grown(tolerance, step(116.0)));
    }

    #[test]
    fn a_decrease_is_not_growth() {
        assert!(!has_grown(Tolerance::NONE, |part| 100.0 - part));
    }

    #[test]
    fn without_samples_of_a_quarter_there_is_no_comparison() {
        let only_early: Vec<_> = samples(|_| 1.0)
            .into_iter()
            .filter(|sample| sample.part < 0.7)
            .collect();
        assert_eq!(compare(&only_early, Tolerance::NONE), None);
        let more = Tolerance {
            samples: 100,
            ..Tolerance::NONE
        };
        assert_eq!(compare(&samples(|part| part), more), None);
        assert_eq!(compare(&[], Tolerance::NONE), None);
    }
}
