//! Alerts and dashboard query only metrics that the agent or the webhook exports.

use std::{collections::BTreeSet, fs};

use interceptor_testkit::{
    lab::wait_until,
    manifests::workspace,
    node::{Driver, Manifest, Node},
};
use serde_json::{Value, json};

/// Exported with their first values.
const LABELLED: [&str; 4] = [
    "interceptor_cni_requests_total",
    "interceptor_repairs_total",
    "interceptor_injection_reviews_total",
    "interceptor_injection_other_injectors",
];
/// Of Prometheus itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Of kube-state-metrics: docs/alerts.md names the alert that needs it.
const OF_KUBERNETES: &str = "kube_daemonset_status_";

const OPERATORS: [&str; 13] = [
    "and", "or", "unless", "on", "by", "group", "sum", "max", "min", "count", "topk", "bool",
    "offset",
];

/// The names of the series that a text of metrics describes, also of those without a value yet.
fn series(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let types = types.filter_map(|line| line.split_once(' '));
    types
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

/// The names of the metrics in a query: its words that are no functions, operators or labels.
fn metrics_of(query: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = query;
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    while let Some(letter) = rest.chars().next() {
        let word = &rest[..rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())];
        let after = rest[word.len()..].trim_start();
        rest = match letter {
            '{' => behind(rest, '}'),
            '[' => behind(rest, ']'),
            '"' => behind(&rest[1..], '"'),
            _ if word.is_empty() => &rest[letter.len_utf8()..],
            _ if ["by", "on"].contains(&word) => behind(rest, ')'),
            _ => &rest[word.len()..],
        };
        let is_metric = !OPERATORS.contains(&word) && !after.starts_with('(');
        if is_metric && word.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
            names.insert(word.to_owned());
        }
    }
    names
}

fn behind(text: &str, end: char) -> &str {
    text.split_once(end).expect("a closing bracket").1
}

fn source(name: &str) -> String {
    let path = workspace().join("deploy/monitoring").join(name);
    fs::read_to_string(path).expect("a file")
}

/// All texts of the field `expr`.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| match field {
            Value::String(query) if name == "expr" => found.push(query.clone()),
            field => queries(field, found),
        }),
        _ => {}
    }
}

#[test]
fn a_query_consists_of_metrics_and_other_words() {
    let query = r#"sum by (a, b) (rate(x_total{c=~"d|e"}[5m])) > 0 unless on (f) g offset 10m"#;
    let names: Vec<_> = metrics_of(query).into_iter().collect();
    assert_eq!(names, ["g", "x_total"]);
}

/// Another injector for the same pods, whose failures are ignored.
fn other_injector() -> Value {
    let rule = json!({
        "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "other"},
        "webhooks": [{
            "name": "other.sidecar-injector.istio.io",
            "clientConfig": {"service": {"name": "other", "namespace": "none", "path": "/inject"}},
            "rules": [rule],
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
        }],
    })
}

/// The metrics of an agent and a webhook that have done some work: metrics with labels are exported
/// with their first value.
fn exported() -> BTreeSet<String> {
    let node = Node::new(Driver::Systemd).expect("a node");
    node.enable_injection("shop").expect("the manifests");
    node.api.put(other_injector()).expect("an object");
    let run = |name| {
        let manifest = Manifest::of_mesh(name, &node.new_uid());
        node.run(manifest).expect("a pod")
    };
    let _repaired = run("there");
    let agent = node
        .start_ready_agent(&["--pod-metrics"])
        .expect("an agent");
    let _captured = run("new");
    let webhook = node.start_webhook(&[]).expect("a webhook");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    node.create("shop", &pod).expect("a call").expect("a pod");
    let mut exported = BTreeSet::new();
    let all = wait_until("all metrics", || {
        for (_, metrics) in [agent.get("/metrics")?, webhook.get("/metrics")?] {
            exported.extend(series(&metrics));
        }
        Ok(LABELLED.iter().all(|name| exported.contains(*name)))
    });
    all.unwrap_or_else(|error| panic!("{error}: {exported:#?}\n{}", webhook.log()));
    exported
}

#[test]
fn every_metric_of_alerts_and_dashboard_is_exported() {
    let exported = exported();
    let rules = serde_saphyr::from_str(&source("alerts.yaml")).expect("YAML");
    let dashboard = serde_json::from_str(&source("dashboard.json")).expect("JSON");
    let mut all = Vec::new();
    queries(&rules, &mut all);
    queries(&dashboard, &mut all);
    assert!(all.len() > 40, "{all:#?}");
    for query in all {
        for name in metrics_of(&query) {
            let known = exported.contains(&name)
                || OF_PROMETHEUS.contains(&&*name)
                || name.starts_with(OF_KUBERNETES);
            assert!(known, "{name} of {query} is not in {exported:#?}");
        }
    }
}
