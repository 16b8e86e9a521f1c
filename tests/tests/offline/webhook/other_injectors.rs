//! Pods that another injector takes too.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Cluster, Replica, TIMEOUT, istiod::istio_webhooks, pod};

const METRIC: &str = "interceptor_injection_other_injectors{configuration=";
const OTHER: &str = "istio-sidecar-injector-default";

/// The webhooks of an istiod of this revision that does not run, and whose failures are ignored.
fn absent_istiod(revision: &str) -> Value {
    let mut configuration = istio_webhooks(revision);
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["failurePolicy"] = json!("Ignore");
    }
    configuration
}

fn namespace(cluster: &Cluster, name: &str, labels: &Value) {
    let metadata = json!({"name": name, "labels": labels});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    cluster.api.put(object).unwrap();
}

/// The warnings that the user gets who creates a pod.
async fn warnings(cluster: &Cluster, namespace: &str, labels: &Value) -> Vec<String> {
    let before = cluster.api.admissions().len();
    let metadata = json!({"labels": labels});
    let created = cluster.api.create_pod(namespace, &pod(&metadata)).await;
    created.unwrap();
    let admissions = cluster.api.admissions();
    let warnings = admissions[before..].iter().flat_map(|admission| {
        let warnings = admission["warnings"].as_array().into_iter().flatten();
        warnings.filter_map(Value::as_str).map(str::to_owned)
    });
    warnings.collect()
}

async fn until_gone(replica: &Replica, text: &str) {
    let start = Instant::now();
    while replica.get("/metrics").await.contains(text) {
        assert!(start.elapsed() < TIMEOUT, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pod_of_two_injectors_gets_a_warning() {
    let cluster = Cluster::new();
    namespace(&cluster, "both", &json!({"istio.io/rev": "default"}));
    cluster.api.put(absent_istiod("canary")).unwrap();
    let replica = cluster.serve(&[]).await;
    assert_eq!(warnings(&cluster, "both", &json!({})).await, [""; 0]);

    cluster.api.put(absent_istiod("default")).unwrap();
    replica
        .until("/metrics", &format!("{METRIC}\"{OTHER}\"}} 1"))
        .await;
    // The other revision selects no pod of ours.
    assert!(!replica.get("/metrics").await.contains("canary"));
    let inject = |value: &str| json!({"sidecar.istio.io/inject": value});
    for (name, labels) in [
        ("both", json!({})),
        ("mesh", json!({})),
        ("plain", json!({"istio.io/rev": "default"})),
        ("plain", inject("true")),
    ] {
        let found = warnings(&cluster, name, &labels).await;
        let [warning] = &found[..] else {
            panic!("{name} {labels}: {found:?}");
        };
        let start = format!("another injector, {OTHER}, is called for this pod too");
        assert!(warning.starts_with(&start), "{warning}");
    }
    assert_eq!(warnings(&cluster, "mesh", &inject("false")).await, [""; 0]);
    let count = "interceptor_injection_pods_of_two_injectors_total 4";
    replica.until("/metrics", count).await;

    // The namespace decides whether the other injector is called, and its labels are not known.
    let mut partial = absent_istiod("default");
    let webhooks = partial["webhooks"].as_array_mut().unwrap();
    webhooks.retain(|webhook| webhook["name"] == "rev.namespace.sidecar-injector.istio.io");
    cluster.api.put(partial).unwrap();
    let text = "is called for this pod too";
    let start = Instant::now();
    while warnings(&cluster, "mesh", &json!({}))
        .await
        .concat()
        .contains(text)
    {
        assert!(start.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metric = format!("{METRIC}\"{OTHER}\"}} 1");
    replica.until("/metrics", &metric).await;

    let group = "admissionregistration.k8s.io/v1";
    let kind = "MutatingWebhookConfiguration";
    cluster.api.remove(group, kind, "", OTHER).unwrap();
    until_gone(&replica, METRIC).await;
    assert_eq!(warnings(&cluster, "both", &json!({})).await, [""; 0]);
    // The manifests allow everything that the webhook does.
    assert_eq!(cluster.api.refused().len(), 0);
}

#[tokio::test]
async fn other_injectors_are_found_after_an_outage() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    cluster.api.set_unavailable(true);
    cluster.api.expire();
    cluster.api.put(absent_istiod("default")).unwrap();
    cluster.api.set_unavailable(false);
    let metric = format!("{METRIC}\"{OTHER}\"}} 1");
    replica.until("/metrics", &metric).await;
    cluster.api.disconnect();
    let kind = "MutatingWebhookConfiguration";
    let group = "admissionregistration.k8s.io/v1";
    cluster.api.remove(group, kind, "", OTHER).unwrap();
    until_gone(&replica, &metric).await;
}
