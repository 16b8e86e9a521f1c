//! What works, but not as the pod's owner may expect.

use serde_json::Value;

use super::{CONTAINER, choices::Choices};
use crate::{overrides::OVERRIDES, pod, status::STATUS};

/// The domains of annotations that change Istio's sidecar.
const DOMAINS: [&str; 6] = [
    "inject.istio.io",
    "prometheus.istio.io",
    "proxy.istio.io",
    "readiness.status.sidecar.istio.io",
    "sidecar.istio.io",
    "status.sidecar.istio.io",
];

/// Annotations of these domains that have an effect: here, in the decision, or in the node agent.
const EFFECTIVE: [&str; 17] = [
    OVERRIDES,
    STATUS,
    "proxy.istio.io/config",
    "readiness.status.sidecar.istio.io/failureThreshold",
    "readiness.status.sidecar.istio.io/initialDelaySeconds",
    "readiness.status.sidecar.istio.io/periodSeconds",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/interceptionMode",
    "sidecar.istio.io/logLevel",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyCPULimit",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/proxyMemoryLimit",
    "sidecar.istio.io/rewriteAppHTTPProbers",
];

pub(super) fn of(pod: &Value, choices: &Choices) -> Vec<String> {
    let ends = matches!(
        pod["spec"]["restartPolicy"].as_str(),
        Some("Never" | "OnFailure")
    );
    let mut warnings = Vec::new();
    if ends && !choices.is_native {
        warnings.push(format!(
            "the pod's restartPolicy is not Always, and {CONTAINER} is not a native sidecar: the \
             pod does not complete, because the proxy keeps running"
        ));
    }
    let annotations = pod::strings(&pod["metadata"]["annotations"]);
    for name in annotations.into_keys().filter(|name| is_ineffective(name)) {
        warnings.push(format!(
            "annotation {name} has no effect on the built-in sidecar"
        ));
    }
    for field in &choices.ineffective_config {
        warnings.push(format!(
            "{field} of annotation proxy.istio.io/config has no effect on the built-in sidecar"
        ));
    }
    warnings
}

fn is_ineffective(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    DOMAINS.contains(&domain) && !EFFECTIVE.contains(&name)
}
