//! What was measured, as it is written down.

use serde::{Deserialize, Serialize};

use super::{Environment, Summary, charts::Chart, targets::Target};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether it was too short to be believed to the percent.
    pub is_quick: bool,
    /// On what machine.
    pub environment: Environment,
    /// What was to be reached, and what was.
    pub targets: Vec<Target>,
    /// A section for each workload.
    pub sections: Vec<Section>,
}

/// What one workload gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// How it was measured.
    pub method: String,
    /// The numbers.
    pub rows: Vec<Row>,
    /// What else was seen.
    pub notes: Vec<String>,
    /// Its pictures.
    pub charts: Vec<Chart>,
}

/// One quantity, for each who has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub what: String,
    /// What it is counted in.
    pub unit: Unit,
    /// How much each has.
    pub values: Vec<Value>,
    /// Ratios of numbers of the same round.
    pub ratios: Vec<Ratio>,
}

/// How much somebody has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// Who.
    pub of: String,
    /// Over all rounds.
    pub summary: Summary,
}

/// How two compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// Whose number is divided.
    pub of: String,
    /// By whose.
    pub to: String,
    /// Over all rounds.
    pub summary: Summary,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds of processor time.
    CpuSeconds,
    /// So many in a second.
    PerSecond,
    /// 10⁹ bits in a second.
    GigabitsPerSecond,
    /// Just so many.
    Count,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// As it is written behind a number.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Nanoseconds => "ns",
            Self::Milliseconds => "ms",
            Self::CpuSeconds => "s of CPU",
            Self::PerSecond => "/s",
            Self::GigabitsPerSecond => "Gbit/s",
            Self::Count => "",
            Self::Bytes => "bytes",
        }
    }
}

/// The numbers of somebody, one for each round.
pub(super) type Numbers = (String, Vec<f64>);

impl Row {
    /// Without ratios.
    #[must_use]
    pub fn new(what: impl Into<String>, unit: Unit, numbers: &[Numbers]) -> Self {
        let value = |(of, numbers): &Numbers| Value {
            of: of.clone(),
            summary: Summary::of(numbers),
        };
        Self {
            what: what.into(),
            unit,
            values: numbers
                .iter()
                .filter(|numbers| !numbers.1.is_empty())
                .map(value)
                .collect(),
            ratios: Vec::new(),
        }
    }

    /// With the ratio of each to the first, round by round.
    #[must_use]
    pub fn against_first(what: impl Into<String>, unit: Unit, numbers: &[Numbers]) -> Self {
        let row = Self::new(what, unit, numbers);
        let Some((base, rest)) = numbers.split_first() else {
            return row;
        };
        rest.iter()
            .fold(row, |row, other| row.with_ratio(other, base))
    }

    /// With one more ratio.
    #[must_use]
    pub fn with_ratio(mut self, of: &Numbers, to: &Numbers) -> Self {
        let ratios: Vec<f64> =
            of.1.iter()
                .zip(&to.1)
                .filter(|(_, to)| **to > 0.0)
                .map(|(of, to)| of / to)
                .collect();
        if !ratios.is_empty() {
            self.ratios.push(Ratio {
                of: of.0.clone(),
                to: to.0.clone(),
                summary: Summary::of(&ratios),
            });
        }
        self
    }

    /// How `of` compares to `to`.
    #[must_use]
    pub fn ratio(&self, of: &str, to: &str) -> Option<Summary> {
        let mut ratios = self.ratios.iter();
        let found = ratios.find(|ratio| ratio.of == of && ratio.to == to)?;
        Some(found.summary)
    }

    /// How much `of` has.
    #[must_use]
    pub fn value(&self, of: &str) -> Option<Summary> {
        let found = self.values.iter().find(|value| value.of == of)?;
        Some(found.summary)
    }
}

impl Section {
    /// The row of this name.
    #[must_use]
    pub fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let numbers = [
            ("a".to_owned(), vec![1.0, 10.0, 100.0]),
            ("b".to_owned(), vec![2.0, 20.0, 200.0]),
        ];
        let row = Row::against_first("x", Unit::Count, &numbers);
        let ratio = row.ratio("b", "a").expect("a ratio");
        assert!((ratio.low - 2.0).abs() < 1e-9 && (ratio.high - 2.0).abs() < 1e-9);
        assert!(row.ratio("a", "b").is_none());
    }
}
