//! A pod without what an earlier injection added, for templates.

use serde_json::Value;

use super::{CONTAINERS, INIT_CONTAINERS, config::Config, containers, prometheus};
use crate::{
    overrides,
    refusal::Problem,
    status::{STATUS, Status},
};

/// `pod` as it was before it was injected, as far as templates depend on it.
pub(super) fn strip(pod: &Value, config: &Config) -> Result<Value, Problem> {
    let mut stripped = pod.clone();
    let overrides = overrides::recorded(pod)?;
    let status = Status::of(pod);
    for list in [CONTAINERS, INIT_CONTAINERS] {
        let own = overrides[list].as_array().map_or(&[][..], Vec::as_slice);
        let mut kept = Vec::new();
        for container in containers::of(pod, list) {
            let was_injected = status
                .as_ref()
                .is_some_and(|status| status.names(list, container));
            if !was_injected {
                kept.push(container.clone());
            } else if let Some(own) = own.iter().find(|own| own["name"] == container["name"]) {
                kept.push(own.clone());
            }
        }
        for own in own {
            if kept.iter().all(|kept| kept["name"] != own["name"]) {
                kept.push(own.clone());
            }
        }
        if let Some(spec) = stripped.get_mut("spec").filter(|spec| spec.is_object()) {
            spec[list] = kept.into();
        }
    }
    if status.is_some() {
        prometheus::strip(&mut stripped, &config.mesh);
        containers::remove_annotation(&mut stripped, STATUS);
    }
    Ok(stripped)
}
