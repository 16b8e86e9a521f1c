//! `interceptor check-inject` against what the API server and the injectors do with the same pods.

use std::{fs, process::Output};

use interceptor_injection::decision::Reason;
use interceptor_testkit::{interceptor, manifests};
use serde_json::{Value, json};

use super::{
    Cluster, has_sidecar,
    istiod::{INJECT_CONFIG, ISTIO, istio_webhooks, istiod},
    pod,
};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// API group, resource and verb.
type Right = (&'static str, &'static str, &'static str);

/// A user with the rights that the command needs, and one who may do everything.
const USERS: [(&str, &[Right]); 2] = [
    (
        "reader",
        &[
            ("", "pods", "get"),
            ("", "pods", "list"),
            ("", "namespaces", "get"),
            ("", "configmaps", "get"),
            ("apps", "daemonsets", "get"),
            (
                "admissionregistration.k8s.io",
                "mutatingwebhookconfigurations",
                "list",
            ),
        ],
    ),
    ("admin", &[("*", "*", "*")]),
];

fn add_users(cluster: &Cluster) {
    for (name, rights) in USERS {
        let rules: Vec<_> = rights
            .iter()
            .map(|(group, resource, verb)| {
                json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
            })
            .collect();
        let metadata = json!({"name": name});
        for object in [
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": "users"}}),
            json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules}),
            json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": metadata,
                "roleRef": {"kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "namespace": "users", "name": name}]}),
        ] {
            cluster.api.put(object).unwrap();
        }
    }
}

fn kubeconfig(cluster: &Cluster, user: &str) -> String {
    let path = cluster.directory.path().join(user);
    fs::write(&path, cluster.api.kubeconfig_of("users", user)).unwrap();
    path.display().to_string()
}

fn check(cluster: &Cluster, arguments: &[&str]) -> Output {
    let kubeconfig = kubeconfig(cluster, "reader");
    let command = ["check-inject", "--kubeconfig", &kubeconfig];
    interceptor::try_run([&command, arguments].concat()).unwrap()
}

/// The one result of `check-inject -o json`, with this exit code.
#[track_caller]
fn checked(cluster: &Cluster, code: i32, arguments: &[&str]) -> Value {
    let output = check(cluster, &[arguments, &["-o", "json"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    list[0].clone()
}

fn notes(checked: &Value) -> Vec<&str> {
    let notes = checked["notes"].as_array().unwrap().iter();
    notes.map(|note| note["kind"].as_str().unwrap()).collect()
}

fn namespace(cluster: &Cluster, name: &str, labels: &Value) {
    let metadata = json!({"name": name, "labels": labels});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    cluster.api.put(object).unwrap();
}

/// Labels with each of these values, or absent.
type Axis = (&'static str, &'static [&'static str]);

/// Every combination of the axes, as objects.
fn combinations(axes: &[Axis]) -> Vec<Value> {
    let mut all = vec![json!({})];
    for (key, values) in axes {
        let with = |labels: &Value, value: &str| {
            let mut labels = labels.clone();
            labels[*key] = json!(value);
            labels
        };
        let extended = all
            .iter()
            .flat_map(|labels| values.iter().map(move |value| with(labels, value)));
        let extended: Vec<_> = extended.collect();
        all.extend(extended);
    }
    all
}

const OF_NAMESPACES: [Axis; 2] = [
    ("istio-injection", &["enabled", "disabled"]),
    ("istio.io/rev", &["default", "canary"]),
];
const OF_PODS: [Axis; 3] = [
    ("sidecar.istio.io/inject", &["true", "false", "yes"]),
    ("istio.io/rev", &["default", "canary"]),
    ("app", &["web"]),
];

/// Pods in namespaces with every combination of the labels that matter, and some that differ
/// otherwise.
fn matrix(cluster: &Cluster) -> Vec<Value> {
    let mut pods = Vec::new();
    let mut add = |namespace: &str, metadata: Value| {
        let mut pod = pod(&metadata);
        pod["metadata"]["name"] = json!(format!("pod-{}", pods.len()));
        pod["metadata"]["namespace"] = json!(namespace);
        pods.push(pod);
    };
    for (index, labels) in combinations(&OF_NAMESPACES).iter().enumerate() {
        let name = format!("n-{index}");
        namespace(cluster, &name, labels);
        for labels in combinations(&OF_PODS) {
            add(&name, json!({"labels": labels}));
        }
        let annotations = json!({"sidecar.istio.io/inject": "false"});
        add(&name, json!({"annotations": annotations}));
        let annotations = json!({"traffic.sidecar.istio.io/includeInboundPorts": "80x"});
        add(&name, json!({"annotations": annotations}));
        let labels = json!({"app": "web", "job": "1"});
        add(&name, json!({"labels": labels}));
    }
    namespace(
        cluster,
        "kube-system",
        &json!({"istio-injection": "enabled"}),
    );
    add("kube-system", json!({}));
    let mut host = pod(&json!({"name": "host", "namespace": "n-1"}));
    host["spec"]["hostNetwork"] = json!(true);
    pods.push(host);
    pods
}

/// What the audit log has about a pod's creation: for each injector that was called, its webhook,
/// decision and rule.
fn audited(admissions: &[Value]) -> Vec<(String, String, String)> {
    let mut audited = Vec::new();
    for admission in admissions {
        let annotations = admission["annotations"].as_object().unwrap();
        let Some((key, decision)) = annotations
            .iter()
            .find(|(key, _)| key.ends_with("/decision"))
        else {
            continue;
        };
        let webhook = key.strip_suffix("/decision").unwrap();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
        let rule = annotations.get(&format!("{webhook}/reason"));
        audited.push((webhook.to_owned(), text(Some(decision)), text(rule)));
    }
    audited.sort();
    audited.dedup();
    audited
}

/// The same of the command's result. An injector that follows one that refuses is not called.
fn predicted(checked: &Value) -> Vec<(String, String, String)> {
    let injectors = checked["injectors"].as_array().unwrap().iter();
    let called = injectors.filter(|injector| injector["webhook"].is_string());
    let mut predicted = Vec::new();
    for injector in called {
        let text = |field: &str| injector[field].as_str().unwrap_or("").to_owned();
        let decision = match (injector["injected"].as_bool(), &injector["rule"]) {
            (Some(true), _) => "injected",
            (Some(false), Value::String(_)) => "skipped",
            (Some(false), _) => "refused",
            (None, _) => "unknown",
        };
        predicted.push((text("webhook"), decision.to_owned(), text("rule")));
        if decision == "refused" {
            break;
        }
    }
    predicted.sort();
    predicted
}

#[tokio::test]
async fn the_answers_equal_what_the_api_server_does() {
    let cluster = Cluster::new();
    add_users(&cluster);
    let _ours = cluster.serve(&[]).await;
    let kubeconfig = kubeconfig(&cluster, "admin");
    let _istiod = istiod(&cluster, "canary", &kubeconfig).await;
    let pods = matrix(&cluster);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string();
    let file = cluster.directory.path().join("pods.json");
    fs::write(&file, list).unwrap();
    let output = check(&cluster, &["-o", "json", "-f", file.to_str().unwrap()]);
    // Some pods are refused.
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), pods.len());
    let mut results = std::collections::BTreeSet::new();
    for (pod, answer) in pods.iter().zip(&answers) {
        let before = cluster.api.admissions().len();
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let created = cluster.api.create_pod(namespace, pod).await;
        let admissions = cluster.api.admissions();
        assert_eq!(
            predicted(answer),
            audited(&admissions[before..]),
            "{pod} {answer}"
        );
        let result = match &created {
            Err(_) => "refused",
            Ok(created) if has_sidecar(created) => "injected",
            Ok(_) => "not_injected",
        };
        assert_eq!(answer["result"], result, "{pod} {answer}");
        let injectors = answer["injectors"].as_array().unwrap();
        results.extend(
            injectors
                .iter()
                .map(|one| one["rule"].as_str().map(str::to_owned)),
        );
    }
    // The matrix reaches every rule of a cluster.
    let rules: Vec<_> = results.iter().flatten().map(String::as_str).collect();
    let expected = [
        "always_selector",
        "annotation_false",
        "host_network",
        "label_false",
        "label_true",
        "namespace_disabled",
        "never_selector",
        "no_label",
        "other_revision",
        "policy_disabled",
        "policy_enabled",
        "system_namespace",
    ];
    assert_eq!(rules, expected);
    assert_eq!(cluster.api.refused().len(), 0);
}

#[tokio::test]
async fn an_existing_pod_is_compared_with_a_new_one() {
    let cluster = Cluster::new();
    add_users(&cluster);
    // Created while the namespace has no label.
    let mut early = cluster
        .api
        .create_pod("plain", &pod(&json!({})))
        .await
        .unwrap();
    early["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    cluster.api.put(early).unwrap();
    let found = checked(&cluster, 0, &["web.plain"]);
    assert_eq!(
        (&found["result"], &found["sidecar"], &found["exists"]),
        (&json!("not_injected"), &Value::Null, &json!(true))
    );
    assert_eq!(found["injectors"][0]["rule"], "no_label");

    let set = json!({"f:metadata": {"f:labels": {"f:istio-injection": {}}}});
    cluster
        .api
        .put(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": "plain", "labels": {"istio-injection": "enabled"},
                "managedFields": [{"time": "2026-01-02T00:00:00Z", "fieldsV1": set}],
            },
        }))
        .unwrap();
    for arguments in [
        &["plain/web"][..],
        &["pod/web", "-n", "plain"],
        &["web.plain", "-n", "plain"],
    ] {
        let found = checked(&cluster, 3, arguments);
        assert_eq!(found["result"], "injected");
        let notes = notes(&found);
        assert!(notes.starts_with(&["sidecar_missing"]), "{notes:?}");
        assert!(notes.contains(&"created_before_label"), "{notes:?}");
    }

    let _ours = cluster.serve(&[]).await;
    cluster
        .api
        .create_pod("mesh", &pod(&json!({})))
        .await
        .unwrap();
    let found = checked(&cluster, 0, &["mesh/web"]);
    assert_eq!(found["sidecar"]["containers"], json!(["istio-proxy"]));
    assert_eq!(notes(&found), [""; 0]);
    namespace(&cluster, "mesh", &json!({}));
    let found = checked(&cluster, 3, &["mesh/web"]);
    assert_eq!(notes(&found), ["sidecar_unexpected"]);
}

#[tokio::test]
async fn a_workload_is_its_newest_pod_or_its_template() {
    let cluster = Cluster::new();
    add_users(&cluster);
    let labels = json!({"app": "agent"});
    cluster
        .api
        .put(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": "mesh", "name": "agent"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"hostNetwork": true}},
            },
        }))
        .unwrap();
    let found = checked(&cluster, 0, &["ds/agent.mesh"]);
    assert_eq!(found["object"], "daemonset/agent");
    assert_eq!(found["injectors"][0]["rule"], "host_network");
    for (name, labels, created) in [
        ("agent-1", &labels, "2026-01-01T00:00:00Z"),
        ("agent-2", &labels, "2026-01-03T00:00:00Z"),
        ("other", &json!({"app": "other"}), "2026-01-04T00:00:00Z"),
    ] {
        let metadata = json!({
            "name": name, "namespace": "mesh", "labels": labels, "creationTimestamp": created,
        });
        cluster.api.put(pod(&metadata)).unwrap();
    }
    let found = checked(&cluster, 3, &["daemonset/agent", "-n", "mesh"]);
    assert_eq!(found["object"], "pod/agent-2 of daemonset/agent");
    assert_eq!(notes(&found)[0], "sidecar_missing");
}

#[tokio::test]
async fn two_injectors_and_open_questions_are_reported() {
    let cluster = Cluster::new();
    add_users(&cluster);
    let mut webhooks = istio_webhooks("default");
    webhooks["metadata"]["labels"]["istio.io/rev"] = json!("none");
    cluster.api.put(webhooks.clone()).unwrap();
    namespace(&cluster, "both", &json!({"istio.io/rev": "default"}));
    // The rules of the other injector cannot be read.
    let found = checked(&cluster, 3, &["-n", "both", "-l", "app=web"]);
    assert_eq!(found["result"], "injected");
    let other = &found["injectors"][1];
    assert_eq!(
        (&other["injected"], &other["rule"]),
        (&Value::Null, &Value::Null)
    );
    let reason = other["reason"].as_str().unwrap();
    assert!(
        reason.contains("istio-system/istio-sidecar-injector-none"),
        "{reason}"
    );

    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": ISTIO, "name": "istio-sidecar-injector-none"},
        "data": {"config": INJECT_CONFIG},
    });
    cluster.api.put(map).unwrap();
    let found = checked(&cluster, 3, &["-n", "both", "-l", "app=web"]);
    assert_eq!(notes(&found), ["two_injectors"]);
    let found = checked(&cluster, 0, &["-n", "both", "-l", "app=db"]);
    assert_eq!(notes(&found), [""; 0]);

    let condition = json!([{"name": "office-hours", "expression": "true"}]);
    webhooks["webhooks"][0]["matchConditions"] = condition;
    cluster.api.put(webhooks).unwrap();
    let found = checked(&cluster, 3, &["-n", "both", "-l", "app=web"]);
    let reason = found["injectors"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("(office-hours)"), "{reason}");
}

#[test]
fn what_does_not_exist_is_named() {
    let cluster = Cluster::new();
    add_users(&cluster);
    for (arguments, parts) in [
        (
            &["none", "-n", "mesh"][..],
            &["pod/none in namespace \"mesh\"", "404 NotFound"][..],
        ),
        (
            &["-n", "none", "-l", "a=b"],
            &["namespace \"none\" does not exist", "--namespace-labels"],
        ),
        (
            &["mesh/a", "-n", "plain"],
            &["namespace \"mesh\"", "\"plain\""],
        ),
        (&["job/a"], &["job/a", "403 Forbidden"]),
        (&["-f", "/none"], &["cannot read /none"]),
    ] {
        let output = check(&cluster, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }
}

/// Manifests of a new namespace and its workload.
#[test]
fn a_namespace_of_the_manifests_counts_if_it_is_new() {
    let cluster = Cluster::new();
    add_users(&cluster);
    let namespace = |name: &str| {
        let metadata = json!({"name": name, "labels": {"istio-injection": "enabled"}});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    };
    for (name, result) in [("new", "injected"), ("plain", "not_injected")] {
        let pod = pod(&json!({"namespace": name}));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [namespace(name), pod]});
        let file = cluster.directory.path().join("app.json");
        fs::write(&file, list.to_string()).unwrap();
        let found = checked(&cluster, 0, &["-f", file.to_str().unwrap()]);
        assert_eq!(found["result"], result);
    }
}

/// The table that a person reads.
#[test]
fn a_table_names_webhook_rule_and_reason() {
    let cluster = Cluster::new();
    add_users(&cluster);
    let output = check(
        &cluster,
        &["-n", "plain", "-l", "sidecar.istio.io/inject=yes"],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "pod in namespace plain: not injected");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(words, ["WEBHOOK", "REVISION", "INJECTED", "RULE", "REASON"]);
    let words: Vec<_> = lines[2].split_whitespace().take(4).collect();
    assert_eq!(words, ["interceptor-injector", "default", "no", "no_label"]);
    assert!(lines[3].starts_with("note: sidecar.istio.io/inject \"yes\" has no effect"));
    assert_eq!(lines.len(), 4, "{text}");
}

/// Without a cluster, the webhooks are those of the manifests.
#[test]
fn without_a_cluster_the_selectors_are_the_same() {
    let cluster = Cluster::new();
    add_users(&cluster);
    for labels in combinations(&OF_NAMESPACES) {
        namespace(&cluster, "shop", &labels);
        let labels = labels.as_object().unwrap().iter();
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap()))
            .collect();
        let labels = labels.join(",");
        for pod in ["a=b", "sidecar.istio.io/inject=true", "istio.io/rev=canary"] {
            let with = checked(&cluster, 0, &["-n", "shop", "-l", pod]);
            let without = [
                "check-inject",
                "-n",
                "shop",
                "-l",
                pod,
                "-o",
                "json",
                "--namespace-labels",
            ];
            let without = interceptor::try_run([&without[..], &[&labels]].concat()).unwrap();
            let without: Value = serde_json::from_slice(&without.stdout).unwrap();
            for field in ["webhook", "rule", "injected", "configuration"] {
                assert_eq!(
                    with["injectors"][0][field], without[0]["injectors"][0][field],
                    "{labels} {pod}"
                );
            }
        }
    }
}

#[test]
fn the_documentation_has_every_rule() {
    let path = manifests::workspace().join("docs/injection.md");
    let text = fs::read_to_string(path).unwrap();
    let table = text
        .split("## Why was this pod not injected?")
        .nth(1)
        .unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("| rule"));
    let rows: String = rows.take_while(|line| line.starts_with('|')).collect();
    for reason in Reason::ALL {
        let rule = format!("`{}`", reason.label());
        assert!(rows.contains(&rule), "{rule}");
    }
}
