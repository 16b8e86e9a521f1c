//! Which pods get a sidecar, and what the audit log says.

use serde_json::json;

use super::{Cluster, has_sidecar, pod};

#[tokio::test]
async fn pods_are_selected_by_the_manifests_and_by_the_webhook() {
    let cluster = Cluster::new();
    let _replica = cluster.serve(&[]).await;
    let inject = |value: &str| json!({"sidecar.istio.io/inject": value});
    // Namespace, metadata, and the reason, if the webhook is called.
    let cases = [
        ("mesh", json!({}), Some("policy_enabled"), true),
        (
            "mesh",
            json!({"labels": inject("true")}),
            Some("label_true"),
            true,
        ),
        ("mesh", json!({"labels": inject("false")}), None, false),
        (
            "mesh",
            json!({"annotations": inject("false")}),
            Some("annotation_false"),
            false,
        ),
        ("plain", json!({}), None, false),
        ("plain", json!({"annotations": inject("true")}), None, false),
        (
            "plain",
            json!({"labels": inject("true")}),
            Some("label_true"),
            true,
        ),
        (
            "plain",
            json!({"labels": {"istio.io/rev": "default"}}),
            Some("policy_enabled"),
            true,
        ),
        (
            "plain",
            json!({"labels": {"istio.io/rev": "canary"}}),
            None,
            false,
        ),
    ];
    for (namespace, metadata, reason, is_injected) in cases {
        let label = format!("{namespace} {metadata}");
        let before = cluster.api.admissions().len();
        let created = cluster.api.create_pod(namespace, &pod(&metadata)).await;
        let created = created.expect(&label);
        assert_eq!(has_sidecar(&created), is_injected, "{label}");
        assert_eq!(created["spec"]["containers"][0]["newField"], 1, "{label}");
        let admissions = cluster.api.admissions();
        let found = admissions[before..].iter().find_map(|admission| {
            let annotations = admission["annotations"].as_object()?;
            let reason = annotations
                .iter()
                .find(|(key, _)| key.ends_with("/reason"))?;
            reason.1.as_str()
        });
        assert_eq!(found, reason, "{label}");
    }
}

#[tokio::test]
async fn a_pod_with_a_bad_annotation_is_refused_with_the_reason() {
    let cluster = Cluster::new();
    let replica = cluster.serve(&[]).await;
    let key = "traffic.sidecar.istio.io/includeInboundPorts";
    let metadata = json!({"annotations": {key: "80x"}});
    let refusal = cluster
        .api
        .create_pod("mesh", &pod(&metadata))
        .await
        .unwrap_err();
    for part in ["injector.interceptor.dev", "denied the request", key, "80x"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    let metrics = replica.get("/metrics").await;
    let expected = "interceptor_injection_reviews_total{result=\"refused\",reason=\"\"} 1";
    assert!(metrics.contains(expected), "{metrics}");
}

#[tokio::test]
async fn without_a_webhook_no_pod_of_the_mesh_is_created() {
    let cluster = Cluster::new();
    let refusal = cluster
        .api
        .create_pod("mesh", &pod(&json!({})))
        .await
        .unwrap_err();
    assert!(refusal.contains("failed calling webhook"), "{refusal}");
    cluster
        .api
        .create_pod("plain", &pod(&json!({})))
        .await
        .unwrap();
}

/// A webhook that is called again for a pod that another one changed leaves its own result.
#[tokio::test]
async fn a_second_injection_changes_nothing() {
    let cluster = Cluster::new();
    let _replica = cluster.serve(&[]).await;
    let once = cluster
        .api
        .create_pod("mesh", &pod(&json!({})))
        .await
        .unwrap();
    let twice = cluster.api.create_pod("mesh", &once).await.unwrap();
    assert_eq!(once["spec"], twice["spec"]);
    assert_eq!(
        once["metadata"]["annotations"],
        twice["metadata"]["annotations"]
    );
}
