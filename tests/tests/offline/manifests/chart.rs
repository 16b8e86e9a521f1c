//! The Helm chart renders the objects of kustomize.

mod documentation;
mod istio_cni;

use std::{collections::BTreeMap, sync::LazyLock};

use interceptor_testkit::helm::{self, Chart};
use serde_json::{Map, Value, json};

use super::{Rendered, types};

/// Directories of `deploy/`, and the values with which the chart renders their objects.
fn others() -> Vec<(Vec<&'static str>, Value)> {
    let from_istio = json!({"enabled": true});
    vec![
        (vec!["examples/taint"], json!({"taint": {"enabled": true}})),
        (
            vec!["examples/live-annotations"],
            json!({"liveAnnotations": true}),
        ),
        (
            vec!["examples/injection"],
            json!({"webhook": {"enabled": true}}),
        ),
        (
            vec!["examples/injection-istio"],
            json!({"webhook": {"enabled": true, "istioConfiguration": from_istio}}),
        ),
        (
            vec!["examples/injection-beside-istiod"],
            json!({"webhook": {
                "enabled": true, "revision": "interceptor", "istioConfiguration": from_istio,
            }}),
        ),
        (
            vec!["webhook"],
            json!({"agent": {"enabled": false}, "webhook": {"enabled": true}}),
        ),
        (
            vec!["viewer"],
            json!({"agent": {"enabled": false}, "viewer": {"enabled": true}}),
        ),
        (
            vec!["examples/injection", "monitoring"],
            json!({
                "webhook": {"enabled": true},
                "monitoring": {"podMonitors": true, "alerts": true, "dashboard": true},
            }),
        ),
    ]
}

/// What kustomize and the chart render of the same.
struct Pair {
    kustomize: Rendered,
    chart: Chart,
}

/// Each platform, and each optional part.
fn pairs() -> &'static [Pair] {
    static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(render_pairs);
    &PAIRS
}

fn render_pairs() -> Vec<Pair> {
    let mut kustomize = Vec::new();
    let mut values = Vec::new();
    for platform in Rendered::platforms() {
        values.push(match platform.dir.strip_prefix("overlays/") {
            Some(name) => json!({"global": {"platform": name}}),
            None => json!({}),
        });
        kustomize.push(Rendered {
            dir: platform.dir.clone(),
            objects: platform.objects.clone(),
        });
    }
    for (dirs, own) in others() {
        values.push(own);
        let objects = dirs.iter().flat_map(|dir| Rendered::of(dir).objects);
        kustomize.push(Rendered {
            dir: dirs.join(", "),
            objects: objects.collect(),
        });
    }
    let charts = helm::render(&values).unwrap();
    kustomize
        .into_iter()
        .zip(charts)
        .map(|(kustomize, chart)| {
            let chart = chart.unwrap_or_else(|error| panic!("{}: {error:#}", kustomize.dir));
            Pair { kustomize, chart }
        })
        .collect()
}

/// The chart with these values.
fn chart(values: Value) -> Chart {
    helm::render(&[values]).unwrap().remove(0).unwrap()
}

impl From<Chart> for Rendered {
    fn from(chart: Chart) -> Self {
        Self {
            dir: "helm/interceptor".to_owned(),
            objects: chart.objects,
        }
    }
}

/// The agent's objects with these values.
fn rendered(values: Value) -> Rendered {
    chart(values).into()
}

/// Kind, namespace and name.
fn id(object: &Value) -> String {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let name = metadata["name"].as_str().unwrap();
    format!("{} {namespace}/{name}", object["kind"])
}

/// The objects by their IDs, without what differs on purpose: the hash in the settings' name, labels
/// of objects, the order of lists whose items have names, and the namespace, which Helm requires to exist.
fn comparable(objects: &[Value]) -> BTreeMap<String, Value> {
    let mut text = Value::from(objects).to_string();
    for name in objects
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str())
    {
        if name.starts_with("interceptor-settings-") {
            text = text.replace(name, "interceptor-settings");
        }
    }
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    let objects = objects.into_iter().map(|mut object| {
        object["metadata"].as_object_mut().unwrap().remove("labels");
        sort_named(&mut object);
        (id(&object), object)
    });
    objects
        .filter(|(_, object)| object["kind"] != "Namespace")
        .collect()
}

fn sort_named(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort_named);
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(sort_named),
        _ => {}
    }
}

#[test]
fn the_chart_renders_the_objects_of_kustomize() {
    for Pair { kustomize, chart } in pairs() {
        let dir = &kustomize.dir;
        let (chart, kustomize) = (comparable(&chart.objects), comparable(&kustomize.objects));
        let ids = |objects: &BTreeMap<_, _>| objects.keys().cloned().collect::<Vec<String>>();
        assert_eq!(ids(&chart), ids(&kustomize), "{dir}: left, the chart");
        for (id, object) in chart {
            assert_eq!(object, kustomize[&id], "{dir}: {id}: left, the chart");
        }
    }
}

fn labels(object: &Value) -> Map<String, Value> {
    object["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default()
}

#[test]
fn the_chart_has_the_labels_of_kustomize_and_helms() {
    for Pair { kustomize, chart } in pairs() {
        for object in &chart.objects {
            let found = labels(object);
            let same = kustomize.objects.iter().filter(|one| id(one) == id(object));
            for (label, value) in same.flat_map(labels) {
                assert_eq!(found.get(&label), Some(&value), "{}: {label}", id(object));
            }
            assert_eq!(found["app.kubernetes.io/managed-by"], "Helm");
            assert_eq!(found["app.kubernetes.io/instance"], "interceptor");
        }
    }
}

/// The operator's kinds have no type here; promtool checks the rules.
#[test]
fn rendered_objects_have_known_fields_only() {
    for Pair { kustomize, chart } in pairs() {
        let is_typed = |object: &&Value| object["apiVersion"] != "monitoring.coreos.com/v1";
        types::check(&Rendered {
            dir: format!("the chart as {}", kustomize.dir),
            objects: chart.objects.iter().filter(is_typed).cloned().collect(),
        });
    }
}

/// Values with every optional part.
fn everything() -> Value {
    let part = json!({"enabled": true});
    json!({
        "webhook": {"enabled": true, "istioConfiguration": part},
        "viewer": part,
        "taint": part,
        "resourceQuotas": part,
        "liveAnnotations": true,
        "provider": "multus",
        "monitoring": {"podMonitors": true, "alerts": true, "dashboard": true},
    })
}

#[test]
fn helm_lint_finds_nothing() {
    for findings in helm::lint(&[json!({}), everything()]).unwrap() {
        assert!(findings.is_empty(), "{findings:?}");
    }
}

#[test]
fn the_charts_version_is_that_of_this_version() {
    let text = super::source("deploy/helm/interceptor/Chart.yaml");
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

#[test]
fn the_namespace_is_that_of_the_release() {
    let mut values = BTreeMap::new();
    for Pair { chart, .. } in pairs() {
        for object in &chart.objects {
            *values
                .entry(object["metadata"]["namespace"].to_string())
                .or_insert(0) += 1;
        }
    }
    // Cluster-wide objects have none; Multus' network and the roles for istiod's ConfigMaps have others.
    let found: Vec<_> = values.keys().map(String::as_str).collect();
    let expected = [
        r#""default""#,
        r#""interceptor-system""#,
        r#""istio-system""#,
        "null",
    ];
    assert_eq!(found, expected);
}

fn settings_name(values: Value) -> String {
    let objects = chart(values).objects;
    let names = objects
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str());
    let mut found = names.filter(|name| name.starts_with("interceptor-settings-"));
    found.next().unwrap().to_owned()
}

/// So that a change restarts the agents.
#[test]
fn the_settings_name_changes_with_a_value() {
    let changed = settings_name(json!({"podMetrics": true}));
    assert_ne!(settings_name(json!({})), changed);
    assert_eq!(
        settings_name(json!({"tolerations": []})),
        settings_name(json!({}))
    );
}

#[test]
fn without_the_plugin_nothing_of_cni_is_mounted() {
    let agent = rendered(json!({"plugin": {"enabled": false}})).agent();
    let names = |name: &str| name.to_lowercase().contains("cni");
    let mounts = agent.volume_mounts.unwrap();
    assert!(!mounts.iter().any(|mount| names(&mount.name)));
    let variables = agent.env.unwrap().into_iter();
    let direct = variables.filter(|variable| variable.value.is_some());
    let direct: Vec<_> = direct.map(|variable| variable.name).collect();
    assert_eq!(direct, ["NO_CNI"]);
}

/// An administrator of the cluster installs one, and that of the mesh the other.
#[test]
fn the_two_scopes_together_are_everything() {
    let with = |scope: &str| {
        let mut values = everything();
        values["global"]["resourceScope"] = scope.into();
        chart(values).objects
    };
    let (cluster, namespace) = (with("cluster"), with("namespace"));
    assert!(!cluster.is_empty() && !namespace.is_empty());
    assert!(
        cluster
            .iter()
            .all(|object| object["metadata"]["namespace"].is_null())
    );
    assert!(
        namespace
            .iter()
            .all(|object| object["metadata"]["namespace"].is_string())
    );
    let both = [cluster, namespace].concat();
    assert_eq!(comparable(&both), comparable(&with("all")));
}

#[test]
fn the_notes_name_what_to_check_for_the_values() {
    let plain = chart(json!({})).notes;
    for expected in [
        "kubectl -n interceptor-system rollout status daemonset/interceptor\n",
        "pilot.cni.enabled=true",
        "This image has no registry",
    ] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
    let other = chart(json!({
        "image": "registry.example.org/interceptor:0.1.0",
        "global": {"platform": "kind"},
        "webhook": {"enabled": true, "revision": "canary"},
    }));
    assert!(
        !other.notes.contains("This image has no registry"),
        "{}",
        other.notes
    );
    for expected in ["/sys/fs/bpf as a mount", "istio.io/rev=canary"] {
        assert!(
            other.notes.contains(expected),
            "{expected}: {}",
            other.notes
        );
    }
}
