//! The original of a pod that Istio injected, from what Istio writes into the pod.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    containers::{CONTAINERS, INIT_CONTAINERS, PROXY},
    overrides::OVERRIDES,
    pod,
    refusal::{Problem, Refusal},
    status::{STATUS, Status},
};

const CONTAINER_LISTS: [&str; 2] = [INIT_CONTAINERS, CONTAINERS];

/// Labels that Istio's templates add, and their value if it is always the same.
const LABELS: [(&str, Option<&str>); 4] = [
    ("networking.istio.io/tunnel", Some("http")),
    ("security.istio.io/tlsMode", Some("istio")),
    ("service.istio.io/canonical-name", None),
    ("service.istio.io/canonical-revision", None),
];

/// Annotations that Istio adds.
const ANNOTATIONS: [&str; 5] = [
    "istio.io/rev",
    "kubectl.kubernetes.io/default-container",
    "kubectl.kubernetes.io/default-logs-container",
    OVERRIDES,
    STATUS,
];

/// `pod` without what Istio injected, and what cannot be restored.
pub(super) fn uninject(pod: &Value) -> Result<(Value, Vec<String>), Refusal> {
    let annotations = &pod["metadata"]["annotations"];
    let status: Status = annotation(annotations, STATUS)?;
    let overrides: Value = annotation(annotations, OVERRIDES)?;
    let mut original = pod.clone();
    let probes = variable(pod, "ISTIO_KUBE_APP_PROBERS");
    restore_probes(&mut original, &probes);
    let prometheus = variable(pod, "ISTIO_PROMETHEUS_ANNOTATIONS");
    restore_prometheus(&mut original, &prometheus);
    for (list, names) in [
        ("initContainers", &status.init_containers),
        ("containers", &status.containers),
        ("volumes", &status.volumes),
        ("imagePullSecrets", &status.image_pull_secrets),
    ] {
        remove_named(&mut original, list, names.as_deref().unwrap_or_default());
    }
    restore_overrides(&mut original, &overrides);
    for (label, value) in LABELS {
        let current = &original["metadata"]["labels"][label];
        if value.is_none_or(|value| current == value) {
            pod::remove(&mut original, &["metadata", "labels", label]);
        }
    }
    for annotation in ANNOTATIONS {
        pod::remove(&mut original, &["metadata", "annotations", annotation]);
    }
    let mut notes = notes(pod, &probes);
    notes.extend(lost_probes(&original));
    Ok((original, notes))
}

/// The JSON in an annotation; the default if there is none.
fn annotation<T: Default + for<'de> Deserialize<'de>>(
    annotations: &Value,
    name: &str,
) -> Result<T, Refusal> {
    let Some(text) = annotations[name].as_str() else {
        return Ok(T::default());
    };
    serde_json::from_str(text).map_err(|error| {
        Refusal(vec![Problem::Annotation {
            name: name.to_owned(),
            value: text.to_owned(),
            problem: format!("expected the JSON that Istio writes: {error}"),
        }])
    })
}

/// The JSON in a variable of the sidecar; null if there is none.
fn variable(pod: &Value, name: &str) -> Value {
    let proxy = CONTAINER_LISTS
        .iter()
        .find_map(|list| pod::named(&pod["spec"][list], PROXY));
    let variable = proxy.and_then(|proxy| pod::named(&proxy["env"], name));
    let text = variable.and_then(|variable| variable["value"].as_str());
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn remove_named(pod: &mut Value, list: &str, names: &[String]) {
    let Some(items) = pod["spec"][list].as_array_mut() else {
        pod::remove(pod, &["spec", list]);
        return;
    };
    items.retain(|item| {
        let name = item["name"].as_str();
        !name.is_some_and(|name| names.iter().any(|one| one == name))
    });
    if items.is_empty() {
        pod::remove(pod, &["spec", list]);
    }
}

/// Containers that the user had under names of the template.
fn restore_overrides(pod: &mut Value, overrides: &Value) {
    for list in CONTAINER_LISTS {
        for container in overrides[list].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            // Istio moves the user's proxy to its native sidecar.
            let is_moved = name == PROXY && container["restartPolicy"].is_null();
            let list = if is_moved { "containers" } else { list };
            if pod::named(&pod["spec"][list], name).is_none() {
                let mut container = container.clone();
                if let Some(container) = container.as_object_mut() {
                    // Istio leaves out an image that the template replaces.
                    container.entry("image").or_insert_with(|| "auto".into());
                }
                pod::containers_mut(pod, list).push(container);
            }
        }
    }
}

/// Puts the handlers of probes and lifecycle hooks back. Istio keeps them by their new path.
fn restore_probes(pod: &mut Value, probes: &Value) {
    for (path, original) in probes.as_object().into_iter().flatten() {
        let mut parts = path.trim_start_matches('/').split('/');
        let (Some(_), Some(name), Some(hook)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        for list in CONTAINER_LISTS {
            let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
            for container in containers.filter(|container| container["name"] == name) {
                restore_handler(container, hook, path, original);
            }
        }
    }
}

fn restore_handler(container: &mut Value, hook: &str, path: &str, original: &Value) {
    let pointer = match hook {
        "readyz" => "/readinessProbe",
        "livez" => "/livenessProbe",
        "startupz" => "/startupProbe",
        "prestopz" => "/lifecycle/preStop",
        "poststartz" => "/lifecycle/postStart",
        _ => return,
    };
    let Some(probe) = container
        .pointer_mut(pointer)
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    if probe.get("httpGet").is_none_or(|get| get["path"] != path) {
        return;
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(handler) = original.get(kind) {
            restore_as(probe, kind, handler);
        }
    }
}

fn restore_as(probe: &mut Map<String, Value>, kind: &str, handler: &Value) {
    if kind != "httpGet" {
        probe.shift_remove("httpGet");
    }
    probe.insert(kind.to_owned(), handler.clone());
}

/// Puts the annotations back that Istio replaced by those of its merged metrics.
fn restore_prometheus(pod: &mut Value, before: &Value) {
    let annotations = &pod["metadata"]["annotations"];
    if annotations["prometheus.io/path"] != "/stats/prometheus" {
        return;
    }
    let targets = targets(before);
    for field in ["scrape", "path", "port"] {
        let key = format!("prometheus.io/{field}");
        let value = before[field].as_str().filter(|value| !value.is_empty());
        // The path and port of the first target.
        match value.filter(|_| field == "scrape" || targets.is_empty()) {
            Some(value) => {
                pod::annotations_mut(pod).insert(key, value.into());
            }
            None => pod::remove(pod, &["metadata", "annotations", &key]),
        }
    }
    if !targets.is_empty() {
        let targets = targets.join(",");
        pod::annotations_mut(pod).insert(SCRAPE_TARGETS.to_owned(), targets.into());
    }
}

const SCRAPE_TARGETS: &str = "prometheus.istio.io/scrape-targets";

/// Several targets, as their annotation has them: `port:path`.
fn targets(before: &Value) -> Vec<String> {
    let targets = before["targets"].as_array().into_iter().flatten();
    let text = |target: &Value| {
        let (port, path) = (target["port"].as_str()?, target["path"].as_str()?);
        Some(format!("{port}:{path}"))
    };
    targets.filter_map(text).collect()
}

/// Probes that are still requests to the proxy: pilot-agent has no original of them.
fn lost_probes(original: &Value) -> Option<String> {
    let containers = CONTAINER_LISTS
        .iter()
        .flat_map(|list| original["spec"][list].as_array().into_iter().flatten());
    let mut names: Vec<_> = containers
        .filter(|container| container.to_string().contains("\"path\":\"/app-health/"))
        .map(|container| container["name"].to_string())
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "probes of the containers {} stay requests to the proxy, whose originals are not in the \
             pod: write them again",
            names.join(", ")
        )
    })
}

fn notes(pod: &Value, probes: &Value) -> Vec<String> {
    let mut notes = vec![
        "Istio keeps no record of the labels and annotations that it adds: those with its names \
         are removed, also if they were the original's"
            .to_owned(),
    ];
    if probes.as_object().is_some_and(|probes| !probes.is_empty()) {
        notes.push("ports of probes are numbers, also if the original had names".to_owned());
    }
    let annotations = pod::strings(&pod["metadata"]["annotations"]);
    let capture = annotations
        .keys()
        .any(|key| key.starts_with("traffic.sidecar.istio.io/"));
    if capture {
        notes.push(
            "annotations traffic.sidecar.istio.io/* stay: the original may have had them"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests;
