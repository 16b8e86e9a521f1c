//! The annotation `sidecar.istio.io/status`: what was injected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CONTAINERS, INIT_CONTAINERS, config::Config, containers, environment};

/// The annotation.
pub(super) const STATUS: &str = "sidecar.istio.io/status";

/// The names of what the templates have. Absent lists are `null`, as Istio writes them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    init_containers: Option<Vec<String>>,
    containers: Option<Vec<String>>,
    volumes: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
    revision: String,
}

impl Status {
    /// The status of a pod that was injected before. It is empty if it cannot be read.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let status = containers::annotation(pod, STATUS)?;
        Some(serde_json::from_str(status).unwrap_or_default())
    }

    /// Whether the templates had this container in `list`.
    pub(super) fn names(&self, list: &str, container: &Value) -> bool {
        let names = match list {
            CONTAINERS => &self.containers,
            INIT_CONTAINERS => &self.init_containers,
            _ => return false,
        };
        let names = names.as_deref().unwrap_or_default();
        names.iter().any(|name| container["name"] == name.as_str())
    }
}

/// Records what was injected, and sets labels and annotations that the configuration adds to each
/// pod.
pub(super) fn record(
    pod: &mut Value,
    template_pod: &Value,
    environment: &BTreeMap<String, String>,
    config: &Config,
) {
    if let Some(network) = environment.get(environment::NETWORK) {
        containers::set_metadata(pod, "labels", environment::NETWORK_LABEL, network);
    }
    let revision = match config.options.revision.as_str() {
        "" => "default",
        revision => revision,
    };
    let status = Status {
        init_containers: names(template_pod, INIT_CONTAINERS),
        containers: names(template_pod, CONTAINERS),
        volumes: names(template_pod, "volumes"),
        image_pull_secrets: names(template_pod, "imagePullSecrets"),
        revision: revision.to_owned(),
    };
    let status = serde_json::to_string(&status).unwrap_or_default();
    containers::set_metadata(pod, "annotations", STATUS, &status);
    for (name, value) in &config.injected_annotations {
        containers::set_metadata(pod, "annotations", name, value);
    }
}

fn names(pod: &Value, list: &str) -> Option<Vec<String>> {
    let names = containers::of(pod, list).iter();
    let names: Vec<_> = names
        .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect();
    (!names.is_empty()).then_some(names)
}
