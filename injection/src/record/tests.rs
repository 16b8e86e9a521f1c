use proptest::prelude::*;
use serde_json::json;

use super::{original as restored, *};

fn undone(original: &Value, injected: &Value) -> Value {
    let (recorded, warning) = add(original, injected.clone());
    assert_eq!(warning, None);
    restored(&recorded).unwrap().unwrap()
}

#[test]
fn the_original_comes_back() {
    let original = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [
                {"name": "istio-proxy", "image": "auto", "resources": {"limits": {"cpu": "1"}}},
                {"name": "web", "ports": [{"containerPort": 80}], "livenessProbe": {
                    "tcpSocket": {"port": 80}, "periodSeconds": 3}},
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    let injected = json!({
        "metadata": {"labels": {"app": "web", "x": "y"}, "annotations": {"s": "{}"}},
        "spec": {
            "initContainers": [{"name": "istio-proxy", "image": "proxyv2"}],
            "containers": [
                {"name": "web", "ports": [{"containerPort": 80}, {"containerPort": 90}],
                    "livenessProbe": {"httpGet": {"path": "/a"}, "periodSeconds": 3}},
            ],
            "volumes": [{"name": "istio-envoy"}, {"name": "data", "emptyDir": {}}],
        },
    });
    assert_eq!(undone(&original, &injected), original);
}

#[test]
fn later_changes_stay() {
    let original = json!({
        "metadata": {},
        "spec": {"containers": [{"name": "web", "image": "a", "readinessProbe": {
            "httpGet": {"path": "/ok", "port": 80}}}]},
    });
    let mut injected = original.clone();
    injected["metadata"]["annotations"] = json!({"ours": "1"});
    injected["spec"]["containers"][0]["readinessProbe"]["httpGet"] =
        json!({"path": "/app-health", "port": 15020});
    injected["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "istio-proxy"}));
    let (mut changed, _) = add(&original, injected);
    changed["metadata"]["annotations"]["theirs"] = json!("2");
    let containers = changed["spec"]["containers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "added"}));
    containers[1]["readinessProbe"]["httpGet"]["port"] = json!(81);
    containers[1]["readinessProbe"]["httpGet"]["scheme"] = json!("HTTP");
    let expected = json!({
        "metadata": {"annotations": {"theirs": "2"}},
        "spec": {"containers": [
            {"name": "added"},
            {"name": "web", "image": "a", "readinessProbe": {
                "httpGet": {"path": "/ok", "port": 81, "scheme": "HTTP"}}},
        ]},
    });
    assert_eq!(restored(&changed).unwrap(), Some(expected));
}

#[test]
fn a_foreign_record_is_refused() {
    let pod = json!({"metadata": {"annotations": {UNDO: "{\"x\":1}"}}});
    let refusal = restored(&pod).unwrap_err().to_string();
    assert!(refusal.starts_with("annotation interceptor.dev/undo \"{\\\"x\\\":1}\": not a record"));
    assert_eq!(restored(&json!({})).unwrap(), None);
}

#[test]
fn a_record_that_is_too_large_is_left_out() {
    let original = json!({"spec": {"x": "a".repeat(MAX_ANNOTATIONS)}});
    let (pod, warning) = add(&original, json!({"spec": {}}));
    assert_eq!(pod, json!({"spec": {}}));
    assert!(warning.unwrap().contains("interceptor.dev/undo"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let entries = prop::collection::btree_map("a|b|name|spec", inner.clone(), 0..4);
        let named = prop::collection::btree_map("[a-d]", inner.clone(), 0..4)
            .prop_map(|map| map.into_iter().map(item).collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(Value::from);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
            entries.prop_map(|map| Value::Object(map.into_iter().collect())),
            named,
        ]
    })
}

fn item((name, value): (String, Value)) -> Value {
    json!({"name": name, "value": value})
}

fn pod() -> impl Strategy<Value = Value> {
    (value(), value(), value()).prop_map(|(labels, annotations, spec)| {
        let mut pod = json!({"metadata": {"labels": labels}, "spec": spec});
        if annotations.is_object() {
            pod["metadata"]["annotations"] = annotations;
        }
        pod
    })
}

proptest! {
    #[test]
    fn undo_of_any_change_gives_the_original(original in pod(), injected in pod()) {
        prop_assert_eq!(undone(&original, &injected), original);
    }
}
