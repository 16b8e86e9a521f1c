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

/// All selectors with at most two requirements on the labels `a` and `b`.
fn selectors() -> Vec<Selector> {
    let mut requirements = vec![Value::Null];
    for key in ["a", "b"] {
        for (operator, values) in [
            ("In", &["1"][..]),
            ("In", &["1", "2"]),
            ("NotIn", &["1"]),
            ("Exists", &[]),
            ("DoesNotExist", &[]),
        ] {
            requirements.push(json!({"key": key, "operator": operator, "values": values}));
        }
    }
    let pairs = requirements
        .iter()
        .flat_map(|one| requirements.iter().map(move |other| [one, other]));
    let parsed = pairs.map(|pair| {
        let pair: Vec<_> = pair.into_iter().filter(|one| !one.is_null()).collect();
        Selector::parse(&json!({"matchExpressions": pair})).unwrap()
    });
    parsed.collect()
}

/// What the definition says: labels are tried one by one.
#[test]
fn overlap_and_implication_hold_for_all_labels() {
    let values = [None, Some("1"), Some("2"), Some("3")];
    let labels: Vec<BTreeMap<_, _>> = values
        .iter()
        .flat_map(|a| values.map(|b| [("a", *a), ("b", b)]))
        .map(|pair| {
            let present = pair
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            present.collect()
        })
        .collect();
    let selectors = selectors();
    for one in &selectors {
        for other in &selectors {
            let both = |labels: &&BTreeMap<_, _>| one.matches(labels) && other.matches(labels);
            assert_eq!(
                one.overlaps(other),
                labels.iter().any(|labels| both(&labels)),
                "{one:?} {other:?}"
            );
            let implied = |labels: &BTreeMap<_, _>| !one.matches(labels) || other.matches(labels);
            assert_eq!(
                one.implies(other),
                labels.iter().all(implied),
                "{one:?} {other:?}"
            );
        }
    }
}

#[test]
fn requirements_are_printed_as_by_kubectl() {
    for (selector, expected) in [
        (json!({"matchLabels": {"a": "1"}}), "a=1"),
        (expression("a", "In", &["1", "2"]), "a in (1,2)"),
        (expression("b", "NotIn", &["1"]), "b!=1"),
        (expression("b", "NotIn", &["1", "2"]), "b notin (1,2)"),
        (expression("a", "Exists", &[]), "a"),
        (expression("b", "DoesNotExist", &[]), "!b"),
    ] {
        let selector = Selector::parse(&selector).unwrap();
        let unmet = selector.unmet(&BTreeMap::from([("b", "1")])).unwrap();
        assert_eq!(unmet.to_string(), expected);
    }
}
