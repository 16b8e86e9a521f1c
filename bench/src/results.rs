//! The results of a run, as they are stored.

use serde::{Deserialize, Serialize};

use super::{Environment, Summary, charts::Chart, targets::Target};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether it was too short to be precise to the percent.
    pub is_quick: bool,
    /// The machine.
    pub environment: Environment,
    /// The targets and their verdicts.
    pub targets: Vec<Target>,
    /// A section for each workload.
    pub sections: Vec<Section>,
}

/// The results of one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// The method of measurement.
    pub method: String,
    /// The numbers.
    pub rows: Vec<Row>,
    /// Other observations.
    pub notes: Vec<String>,
    /// Its charts.
    pub charts: Vec<Chart>,
}

/// One quantity, for each name that has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its description.
    pub what: String,
    /// Its unit.
    pub unit: Unit,
    /// The value of each name.
    pub values: Vec<Value>,
    /// Ratios of numbers of the same round.
    pub ratios: Vec<Ratio>,
}

/// The value of one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// The name.
    pub of: String,
    /// Over all rounds.
    pub summary: Summary,
}

/// The ratio of two values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// The dividend's name.
    pub of: String,
    /// The divisor's name.
    pub to: String,
    /// Over all rounds.
    pub summary: Summary,
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds of CPU time.
    CpuSeconds,
    /// A rate per second.
    PerSecond,
    /// 10⁹ bits in a second.
    GigabitsPerSecond,
    /// A count.
    Count,
    /// Bytes.
    Bytes,
    /// 2²⁰ bytes.
    Mebibytes,
}

impl Unit {
    /// The symbol after a number.
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
            Self::Mebibytes => "MiB",
        }
    }
}

/// A name and its numbers, one for each round.
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

    /// With the ratio of each name to the first, round by round.
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

    /// The ratio of `of` to `to`.
    #[must_use]
    pub fn ratio(&self, of: &str, to: &str) -> Option<Summary> {
        let mut ratios = self.ratios.iter();
        let found = ratios.find(|ratio| ratio.of == of && ratio.to == to)?;
        Some(found.summary)
    }

    /// The value of `of`.
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
