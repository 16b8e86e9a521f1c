//! Label selectors, as in `neverInjectSelector` and in webhook configurations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Deserialize;
use serde_json::Value;

/// A label selector: all its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// One requirement of a selector, on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// The object of the API. Unknown fields are ignored, as istiod does.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Option<Vec<String>>,
}

/// Why a selector cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not the object of the API.
    #[error("not a label selector: {0}")]
    Object(#[from] serde_json::Error),
    /// An operator has too few or too many values.
    #[error("matchExpressions: {key:?}: {problem}")]
    Values {
        /// The label's key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Selector {
    /// Reads the object of the API.
    pub fn parse(object: &Value) -> Result<Self, Invalid> {
        let raw = Option::<Raw>::deserialize(object)?.unwrap_or_default();
        let labels = raw.match_labels.into_iter().flatten();
        let mut requirements: Vec<_> = labels.map(|(key, value)| equal(key, value)).collect();
        for expression in raw.match_expressions.into_iter().flatten() {
            requirements.push(requirement(expression)?);
        }
        Ok(Self(requirements))
    }

    /// Whether the selector has no requirement. The API takes that for "everything"; istiod ignores
    /// such a selector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<&str, &str>) -> bool {
        self.unmet(labels).is_none()
    }

    /// The first requirement that these labels do not meet.
    #[must_use]
    pub fn unmet(&self, labels: &BTreeMap<&str, &str>) -> Option<&Requirement> {
        self.0.iter().find(|requirement| {
            let value = labels.get(requirement.key.as_str()).copied();
            !requirement.holds(value)
        })
    }

    /// Whether a requirement is on this label.
    #[must_use]
    pub fn mentions(&self, key: &str) -> bool {
        self.on(key).next().is_some()
    }

    /// The values that the requirements on this label list.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.on(key)
            .flat_map(|requirement| requirement.values.iter().map(String::as_str))
    }

    /// The selector with this value of a label as its only requirement.
    #[must_use]
    pub fn equal(key: &str, value: &str) -> Self {
        Self(vec![equal(key.to_owned(), value.to_owned())])
    }

    /// The selector with the requirements of both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Whether there are labels that both selectors match.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let keys: BTreeSet<_> = self.0.iter().chain(&other.0).map(|one| &*one.key).collect();
        keys.into_iter().all(|key| {
            let mut cases = cases(self.on(key).chain(other.on(key)));
            cases.any(|value| self.allows(key, value) && other.allows(key, value))
        })
    }

    /// Whether `other` matches all labels that this selector matches.
    #[must_use]
    pub fn implies(&self, other: &Self) -> bool {
        !self.overlaps(self)
            || other.0.iter().all(|requirement| {
                let key = &*requirement.key;
                let mut cases = cases(self.on(key).chain(other.on(key)));
                cases.all(|value| !self.allows(key, value) || requirement.holds(value))
            })
    }

    fn on(&self, key: &str) -> impl Iterator<Item = &Requirement> {
        self.0
            .iter()
            .filter(move |requirement| requirement.key == key)
    }

    /// Whether the requirements on `key` permit this value, or the label's absence.
    fn allows(&self, key: &str, value: Option<&str>) -> bool {
        self.on(key).all(|requirement| requirement.holds(value))
    }
}

/// Values of a label that these requirements can distinguish: absent, each listed one, and one that
/// none lists.
fn cases<'a>(
    requirements: impl Iterator<Item = &'a Requirement>,
) -> impl Iterator<Item = Option<&'a str>> {
    let listed = requirements.flat_map(|requirement| requirement.values.iter());
    let listed = listed.map(|value| Some(value.as_str()));
    [None, Some(UNLISTED)].into_iter().chain(listed)
}

/// No value of a label: it has a space.
pub(super) const UNLISTED: &str = "any other";

fn equal(key: String, value: String) -> Requirement {
    Requirement {
        key,
        operator: Operator::In,
        values: vec![value],
    }
}

fn requirement(expression: Expression) -> Result<Requirement, Invalid> {
    let Expression {
        key,
        operator,
        values,
    } = expression;
    let values = values.unwrap_or_default();
    let problem = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => "In and NotIn require values",
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            "Exists and DoesNotExist have no values"
        }
        _ => {
            return Ok(Requirement {
                key,
                operator,
                values,
            });
        }
    };
    Err(Invalid::Values { key, problem })
}

impl Requirement {
    /// Whether a label with this value, or its absence, meets the requirement.
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed(),
            // As in the API: a label that does not exist is not in the list.
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// As kubectl prints it.
impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(formatter, "{key}={values}"),
            (Operator::In, _) => write!(formatter, "{key} in ({values})"),
            (Operator::NotIn, 1) => write!(formatter, "{key}!={values}"),
            (Operator::NotIn, _) => write!(formatter, "{key} notin ({values})"),
            (Operator::Exists, _) => formatter.write_str(key),
            (Operator::DoesNotExist, _) => write!(formatter, "!{key}"),
        }
    }
}

/// The selectors of one list of the injector's configuration. Empty ones are ignored, and so are
/// invalid ones, with a warning each.
#[must_use]
pub fn list(name: &str, objects: &Value) -> (Vec<Selector>, Vec<String>) {
    let mut selectors = Vec::new();
    let mut warnings = Vec::new();
    for (index, object) in objects.as_array().into_iter().flatten().enumerate() {
        match Selector::parse(object) {
            Ok(selector) if selector.is_empty() => {}
            Ok(selector) => selectors.push(selector),
            Err(error) => warnings.push(format!("{name}[{index}] is ignored: {error}")),
        }
    }
    (selectors, warnings)
}

#[cfg(test)]
mod tests;
