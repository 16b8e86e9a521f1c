//! `metav1.LabelSelector`.

use serde_json::Value;

/// Whether `selector` selects an object with these labels. An absent selector selects all.
pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    wanted.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.all(|expression| holds(expression, labels))
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let label = expression["key"].as_str().and_then(|key| labels.get(key));
    let values = expression["values"].as_array();
    let is_listed = label.is_some_and(|label| values.is_some_and(|list| list.contains(label)));
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        other => panic!("the real server refuses the operator {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::matches;

    #[test]
    fn expressions_are_evaluated_as_by_kubernetes() {
        let cases = [
            (json!({"key": "a", "operator": "In", "values": ["1"]}), true),
            (
                json!({"key": "b", "operator": "In", "values": ["1"]}),
                false,
            ),
            (
                json!({"key": "a", "operator": "NotIn", "values": ["1"]}),
                false,
            ),
            (
                json!({"key": "b", "operator": "NotIn", "values": ["1"]}),
                true,
            ),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "b", "operator": "DoesNotExist"}), true),
        ];
        for (expression, expected) in cases {
            let selector = json!({"matchExpressions": [expression]});
            assert_eq!(
                matches(&selector, &json!({"a": "1"})),
                expected,
                "{selector}"
            );
        }
        assert!(matches(&Value::Null, &Value::Null));
        assert!(!matches(&json!({"matchLabels": {"a": "1"}}), &Value::Null));
    }
}
