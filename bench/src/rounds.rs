//! Rounds of measurements.

use anyhow::Result;

use super::results::Numbers;

/// The results of each subject, round by round.
pub(super) struct Rounds<T> {
    subjects: Vec<(String, Vec<T>)>,
}

/// Measures all subjects in each of `count` rounds, in another order each time, after one round
/// that is not counted.
pub(super) fn take_turns<S, T>(
    count: usize,
    subjects: &[(String, S)],
    mut measure: impl FnMut(&S) -> Result<T>,
) -> Result<Rounds<T>> {
    let mut rounds: Vec<(String, Vec<T>)> = subjects
        .iter()
        .map(|(name, _)| (name.clone(), Vec::with_capacity(count)))
        .collect();
    for (_, subject) in subjects {
        measure(subject)?;
    }
    for round in 0..count {
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            rounds[index].1.push(measure(&subjects[index].1)?);
        }
    }
    Ok(Rounds { subjects: rounds })
}

impl<T> Rounds<T> {
    /// One number of each measurement.
    pub(super) fn numbers(&self, number: impl Fn(&T) -> f64) -> Vec<Numbers> {
        self.subjects
            .iter()
            .map(|(name, measured)| (name.clone(), measured.iter().map(&number).collect()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_subject_is_first_equally_often() {
        let order = RefCell::new(String::new());
        let subjects = ["a", "b", "c"].map(|name| (name.to_owned(), name));
        let rounds = take_turns(3, &subjects, |name| {
            order.borrow_mut().push_str(name);
            Ok(1.0)
        })
        .expect("rounds");
        assert_eq!(order.into_inner(), "abcabcbcacab");
        for (_, numbers) in rounds.numbers(|number| *number) {
            assert_eq!(numbers.len(), 3);
        }
    }
}
