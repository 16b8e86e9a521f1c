//! Label selectors, as in `neverInjectSelector` and in webhook configurations.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A label selector: all its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
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
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

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
    fn holds(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let value = labels.get(self.key.as_str());
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
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &Value, labels: &[(&str, &str)]) -> bool {
        let selector = Selector::parse(selector).unwrap();
        selector.matches(&labels.iter().copied().collect())
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn operators_are_those_of_the_api() {
        let labels = [("a", "1"), ("b", "")];
        for (selector, expected) in [
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "1", "c": "1"}}), false),
            (expression("a", "In", &["0", "1"]), true),
            (expression("c", "In", &["1"]), false),
            (expression("a", "NotIn", &["1"]), false),
            (expression("c", "NotIn", &["1"]), true),
            (expression("b", "Exists", &[]), true),
            (expression("b", "DoesNotExist", &[]), false),
            (expression("c", "DoesNotExist", &[]), true),
        ] {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn unusable_selectors_are_ignored_with_a_warning() {
        let objects = json!([
            {},
            {"matchLabels": {}},
            {"matchLabels": {"a": 1}},
            expression("a", "In", &[]),
            expression("a", "Exists", &["1"]),
            expression("a", "Like", &["1"]),
            {"matchLabels": {"a": "1"}},
        ]);
        let (selectors, warnings) = list("neverInjectSelector", &objects);
        assert_eq!(selectors.len(), 1);
        assert_eq!(warnings.len(), 4);
        assert_eq!(
            warnings[1],
            "neverInjectSelector[3] is ignored: matchExpressions: \"a\": In and NotIn require values"
        );
    }
}
