use serde_json::json;

use super::*;

/// A pod as Istio 1.32 injects it, shortened.
fn injected() -> Value {
    let probes = json!({
        "/app-health/web/livez": {"tcpSocket": {"port": 80}},
        "/app-health/web/readyz": {"httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTPS"},
            "timeoutSeconds": 3},
        "/app-lifecycle/web/prestopz": {"httpGet": {"path": "/bye", "port": 80}},
    });
    let scrape = json!({"scrape": "true", "path": "", "port": "9090"});
    let handler = |path: &str| json!({"path": path, "port": 15020});
    json!({
        "metadata": {
            "labels": {"app": "web", "security.istio.io/tlsMode": "istio",
                "service.istio.io/canonical-name": "web"},
            "annotations": {
                "istio.io/rev": "default",
                "prometheus.io/path": "/stats/prometheus",
                "prometheus.io/port": "15020",
                "prometheus.io/scrape": "true",
                "proxy.istio.io/overrides": json!({"containers": [{"name": "istio-proxy",
                    "resources": {}}]}).to_string(),
                "sidecar.istio.io/status": json!({"initContainers": ["istio-init", "istio-proxy"],
                    "containers": null, "volumes": ["istio-envoy"], "imagePullSecrets": null,
                    "revision": "default"}).to_string(),
                "traffic.sidecar.istio.io/excludeInboundPorts": "15020",
            },
        },
        "spec": {
            "initContainers": [
                {"name": "istio-init"},
                {"name": "istio-proxy", "env": [
                    {"name": "ISTIO_KUBE_APP_PROBERS", "value": probes.to_string()},
                    {"name": "ISTIO_PROMETHEUS_ANNOTATIONS", "value": scrape.to_string()},
                ]},
            ],
            "containers": [{
                "name": "web",
                "livenessProbe": {"httpGet": handler("/app-health/web/livez"), "periodSeconds": 9},
                "readinessProbe": {"httpGet": handler("/app-health/web/readyz")},
                "startupProbe": {"httpGet": {"path": "/mine", "port": 80}},
                "lifecycle": {"preStop": {"httpGet": handler("/app-lifecycle/web/prestopz")}},
            }],
            "volumes": [{"name": "istio-envoy"}, {"name": "data"}],
        },
    })
}

#[test]
fn istios_output_is_undone() {
    let (original, notes) = uninject(&injected()).unwrap();
    let expected = json!({
        "metadata": {
            "labels": {"app": "web"},
            "annotations": {
                "prometheus.io/port": "9090",
                "prometheus.io/scrape": "true",
                "traffic.sidecar.istio.io/excludeInboundPorts": "15020",
            },
        },
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 9},
                    "readinessProbe": {
                        "httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTPS"}},
                    "startupProbe": {"httpGet": {"path": "/mine", "port": 80}},
                    "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 80}}},
                },
                {"name": "istio-proxy", "resources": {}, "image": "auto"},
            ],
            "volumes": [{"name": "data"}],
        },
    });
    assert_eq!(original, expected);
    assert_eq!(notes.len(), 3);
}

#[test]
fn what_is_empty_without_istio_is_removed() {
    let pod = json!({
        "metadata": {"annotations": {STATUS: r#"{"containers":["istio-proxy"],"volumes":["v"]}"#}},
        "spec": {"containers": [{"name": "istio-proxy"}, {"name": "web"}], "volumes": [{"name": "v"}]},
    });
    let (original, _) = uninject(&pod).unwrap();
    assert_eq!(original, json!({"spec": {"containers": [{"name": "web"}]}}));
}

#[test]
fn a_broken_status_is_refused() {
    let pod = json!({"metadata": {"annotations": {STATUS: "injected"}}});
    let refusal = uninject(&pod).unwrap_err().to_string();
    assert!(
        refusal.starts_with("annotation sidecar.istio.io/status \"injected\": expected the JSON")
    );
}

#[test]
fn several_prometheus_targets_are_one_annotation() {
    let targets = json!([{"port": "80", "path": "/a"}, {"port": "90", "path": "/b"}]);
    let before = json!({"scrape": "true", "port": "80", "path": "/a", "targets": targets});
    let mut pod = json!({"metadata": {"annotations": {
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": "15020",
        "prometheus.io/scrape": "true",
    }}});
    restore_prometheus(&mut pod, &before);
    let expected = json!({
        "prometheus.io/scrape": "true",
        "prometheus.istio.io/scrape-targets": "80:/a,90:/b",
    });
    assert_eq!(pod["metadata"]["annotations"], expected);
}

#[test]
fn probes_without_an_original_are_named() {
    let mut pod = injected();
    pod["spec"]["initContainers"][1]["env"] = json!([]);
    let (_, notes) = uninject(&pod).unwrap();
    let note = notes.last().unwrap();
    assert!(
        note.starts_with("probes of the containers \"web\" stay"),
        "{note}"
    );
}
