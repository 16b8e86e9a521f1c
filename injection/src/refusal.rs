//! Why a pod cannot be injected.

use std::fmt;

/// A pod that must not be created as it is: all its problems at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal(pub Vec<Problem>);

/// One problem of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An annotation has an invalid value.
    Annotation {
        /// The annotation's key.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// The configuration fails for this pod: its template, or the result.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation {
                name,
                value,
                problem,
            } => write!(formatter, "annotation {name} {value:?}: {problem}"),
            Self::Other(problem) => formatter.write_str(problem),
        }
    }
}
