//! Pods for tests: a pod with one app container, as Istio's injector changes it.

use k8s_openapi::api::core::v1 as k8s;
use serde_json::{Value, json};

use super::policy::pod::Pod;

pub(super) fn pod(manifest: Value) -> Pod {
    let pod: k8s::Pod = serde_json::from_value(manifest).unwrap();
    Pod::of(&pod).unwrap()
}

/// A pod that is injected for istio-cni.
pub(super) fn injected() -> Value {
    json!({
        "metadata": {
            "name": "reviews-1", "namespace": "shop", "uid": "6d0e",
            "labels": {"app": "reviews", "service.istio.io/canonical-name": "reviews"},
            "annotations": {
                "sidecar.istio.io/status": "{\"initContainers\":[\"istio-validation\"]}",
                "sidecar.istio.io/interceptionMode": "REDIRECT",
                "traffic.sidecar.istio.io/includeInboundPorts": "*",
                "traffic.sidecar.istio.io/excludeInboundPorts": "15090,15021",
                "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
                "kubernetes.io/config.seen": "2026-11-22T00:00:00Z"
            }
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{
                "name": "istio-validation", "image": "docker.io/istio/proxyv2:1.30.0",
                "args": ["istio-iptables", "-p", "15001", "--run-validation", "--skip-rule-apply"]
            }],
            "containers": [
                {"name": "reviews", "image": "example.com/reviews:1", "env": [{"name": "A", "value": "1"}]},
                {
                    "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.30.0",
                    "args": ["proxy", "sidecar", "--domain", "shop.svc.cluster.local"],
                    "env": [
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes"}
                    ],
                    "securityContext": {"runAsUser": 1337, "runAsGroup": 1337}
                }
            ]
        },
        "status": {"phase": "Pending"}
    })
}

/// A pod that is injected with an istio-init container of this image.
pub(super) fn with_istio_init(image: &str) -> Value {
    let mut pod = injected();
    pod["spec"]["initContainers"] = json!([
        {"name": "migrate", "image": "example.com/migrate:1"},
        {
            "name": "istio-init", "image": image,
            "args": [
                "istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT",
                "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020",
                "--log_output_level=default:info"
            ],
            "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "false"}]
        }
    ]);
    pod
}

/// The status of a running container.
pub(super) fn running(name: &str) -> Value {
    json!({
        "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-11-22T00:00:00Z"}}
    })
}
