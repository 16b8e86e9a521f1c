//! The built-in sidecar: an Envoy with a static configuration, for clusters without istiod.
//!
//! It captures and observes; it has no mTLS and no configuration from a control plane. It needs no
//! init container, no capability and no volume, and passes the Pod Security Standard `restricted`.

use serde_json::{Value, json};

use crate::{
    pod::{annotation, annotations_mut, containers_mut},
    refusal::{Problem, Refusal},
};

pub mod bootstrap;
mod choices;
mod container;
pub mod ports;

use choices::Choices;

/// The name of the proxy's container. The agent, istioctl and Kiali look for it.
pub const CONTAINER: &str = "istio-proxy";

const STATUS: &str = "sidecar.istio.io/status";

/// The configuration of the built-in sidecar.
#[derive(Clone, Debug)]
pub struct Config {
    /// The image. Its command must be `/usr/local/bin/envoy`.
    pub image: String,
    /// Whether the proxy is a native sidecar: an init container that keeps running. The annotation
    /// `sidecar.istio.io/nativeSidecar` of a pod takes precedence.
    pub is_native: bool,
    /// Whether the app's containers start after the proxy is ready.
    pub hold: bool,
    /// The proxy's resources.
    pub resources: Resources,
    /// The number of Envoy's worker threads. 0: one for each CPU of the node.
    pub concurrency: u32,
    /// Envoy's log level.
    pub log_level: String,
    /// Replaces the built-in configuration of Envoy.
    pub bootstrap: Option<Value>,
}

impl Default for Config {
    /// Istio's resources and log level, and a native sidecar.
    fn default() -> Self {
        Self {
            image: "docker.io/envoyproxy/envoy:distroless-v1.40.0".to_owned(),
            is_native: true,
            hold: false,
            resources: Resources {
                cpu_request: "100m".to_owned(),
                memory_request: "128Mi".to_owned(),
                cpu_limit: "2000m".to_owned(),
                memory_limit: "1024Mi".to_owned(),
            },
            concurrency: 2,
            log_level: "warning".to_owned(),
            bootstrap: None,
        }
    }
}

/// Resources of a container, as Kubernetes quantities. An empty one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `requests.cpu`
    pub cpu_request: String,
    /// `requests.memory`
    pub memory_request: String,
    /// `limits.cpu`
    pub cpu_limit: String,
    /// `limits.memory`
    pub memory_limit: String,
}

/// Returns `pod` with the sidecar, and warnings for the pod's owner.
///
/// `pod` must have been stripped of an earlier sidecar.
pub fn inject(pod: &Value, config: &Config) -> Result<(Value, Vec<String>), Refusal> {
    let choices = Choices::of(pod, config).map_err(Refusal)?;
    if has_container(pod, CONTAINER) {
        let problem = format!(
            "the pod has a container {CONTAINER:?} of its own, which the built-in sidecar would \
             replace: rename it, or inject with Istio's template"
        );
        return Err(Refusal(vec![Problem::Other(problem)]));
    }
    let mut injected = pod.clone();
    let proxy = container::proxy(&choices, config);
    let names = json!([CONTAINER]);
    let (init, regular) = if choices.is_native {
        // Before the pod's own init containers, whose connections are captured too.
        containers_mut(&mut injected, "initContainers").insert(0, proxy);
        (names, Value::Null)
    } else {
        containers_mut(&mut injected, "containers").push(proxy);
        (Value::Null, names)
    };
    let status = json!({
        "initContainers": init,
        "containers": regular,
        "volumes": null,
        "imagePullSecrets": null,
        "revision": "default",
    });
    annotations_mut(&mut injected).insert(STATUS.to_owned(), json!(status.to_string()));
    Ok((injected, warnings(pod, &choices)))
}

fn has_container(pod: &Value, name: &str) -> bool {
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten()
        .any(|container| container["name"] == name)
}

fn warnings(pod: &Value, choices: &Choices) -> Vec<String> {
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
    if annotation(pod, "sidecar.istio.io/bootstrapOverride").is_some() {
        warnings.push(
            "annotation sidecar.istio.io/bootstrapOverride has no effect on the built-in sidecar"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests;
