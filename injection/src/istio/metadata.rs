//! Labels and annotations that each injected pod gets besides those of its templates.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CONTAINERS, INIT_CONTAINERS, config::Config, containers, environment};
use crate::status::{STATUS, Status};

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
    containers::set_metadata(pod, "annotations", STATUS, &status.to_string());
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
