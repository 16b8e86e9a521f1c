//! The objects of the goldens, as Kubernetes reads them.

use interceptor_injection::{
    documents::{self, Piece},
    workloads,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{GOLDENS, Sidecar, golden, injected};
use crate::pod_security;

/// The pods and pod templates in a stream.
fn pods(text: &str) -> Vec<Value> {
    let pieces = documents::parse(text).unwrap();
    let objects = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Document(document) => Some(document.value),
        Piece::Verbatim(_) => None,
    });
    let pods = objects.flat_map(|object| {
        let found = workloads::of(&object);
        let pods: Vec<_> = found
            .iter()
            .map(|workload| object.pointer(&workload.pointer).unwrap().clone())
            .collect();
        pods
    });
    pods.collect()
}

fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Value {
    let typed: T = serde_json::from_value(value.clone()).unwrap();
    serde_json::to_value(typed).unwrap()
}

#[test]
fn every_result_has_known_fields_only() {
    let mut count = 0;
    for (_, name, _, _) in GOLDENS {
        for pod in pods(&golden(name)) {
            let known = if pod["kind"] == "Pod" {
                through::<Pod>(&pod)
            } else {
                through::<PodTemplateSpec>(&pod)
            };
            assert_eq!(known, pod, "{name}: left, as Kubernetes reads it");
            count += 1;
        }
    }
    assert!(count >= GOLDENS.len(), "{count}");
}

/// The app's own containers may be anything: only the sidecar is checked.
#[test]
fn the_built_in_sidecar_passes_pod_security_restricted() {
    let mut count = 0;
    for (_, name, sidecar, _) in GOLDENS {
        if matches!(sidecar, Sidecar::Template) {
            continue;
        }
        for pod in pods(&golden(name)) {
            let mut spec: PodSpec = serde_json::from_value(pod["spec"].clone()).unwrap();
            spec.host_network = None;
            spec.containers
                .retain(|container| container.name == "istio-proxy");
            if let Some(init) = &mut spec.init_containers {
                init.retain(|container| container.name == "istio-proxy");
            }
            count += spec.containers.len() + spec.init_containers.iter().flatten().count();
            assert_eq!(pod_security::violations(&spec), [""; 0], "{name}");
        }
    }
    assert!(count > 15, "{count}");
}

/// Each kind gets the sidecar that a pod gets, with each option.
#[test]
fn the_sidecar_does_not_depend_on_the_kind() {
    let kinds = [
        "daemonset",
        "deploymentconfig",
        "job",
        "cronjob",
        "replicaset",
        "replicationcontroller",
        "rollout",
        "statefulset",
    ];
    let options: [&[&str]; 4] = [
        &[],
        &["--native-sidecar", "false"],
        &["--hold"],
        &["--image", "registry.example/envoy:1"],
    ];
    for arguments in options {
        let of_pod = sidecar(&injected("pod.yaml", Sidecar::Short, arguments));
        for kind in kinds {
            let of_kind = injected(&format!("{kind}.yaml"), Sidecar::Short, arguments);
            assert_eq!(sidecar(&of_kind), of_pod, "{kind} {arguments:?}");
        }
    }
}

/// The only sidecar of a stream, and the list that it is in.
fn sidecar(text: &str) -> (&'static str, Value) {
    let mut found = Vec::new();
    for pod in pods(text) {
        for list in ["initContainers", "containers"] {
            let containers = pod["spec"][list].as_array().into_iter().flatten();
            let proxies = containers.filter(|container| container["name"] == "istio-proxy");
            found.extend(proxies.map(|proxy| (list, proxy.clone())));
        }
    }
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0)
}
