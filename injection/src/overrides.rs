//! The pod's own settings of injected containers, which win over the templates.
//!
//! A pod may have a container of an injected name, with `image: auto`. Its settings are kept in an
//! annotation, so that they also win when the pod is injected again: Istio loses them then.

use serde_json::{Map, Value, json};

use crate::{
    containers::{self, CONTAINERS, INIT_CONTAINERS},
    merge,
    refusal::Problem,
    status::Status,
};

/// The annotation with the pod's own containers of injected names.
pub(crate) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// The image of a container that has only overrides.
const AUTO_IMAGE: &str = "auto";

/// The annotation's value; an empty object without it.
pub(crate) fn recorded(pod: &Value) -> Result<Value, Problem> {
    let Some(text) = containers::annotation(pod, OVERRIDES) else {
        return Ok(json!({}));
    };
    let parsed: Result<Map<String, Value>, _> = serde_json::from_str(text);
    parsed
        .map(Value::Object)
        .map_err(|error| Problem::Annotation {
            name: OVERRIDES.to_owned(),
            value: text.to_owned(),
            problem: format!("it must be a JSON object: {error}"),
        })
}

/// `pod`, which has the templates merged into it, with the overrides of the original one.
pub(crate) fn apply(
    mut pod: Value,
    template_pod: &Value,
    original: &Value,
) -> Result<Value, Problem> {
    let recorded = recorded(original)?;
    let status = Status::of(original);
    let mut found = Map::new();
    for list in [CONTAINERS, INIT_CONTAINERS] {
        for container in containers::of(template_pod, list) {
            let was_injected = status
                .as_ref()
                .is_some_and(|status| status.names(list, container));
            let own = own_container(original, &recorded, list, container, was_injected);
            let Some(mut own) = own.cloned() else {
                continue;
            };
            if own["image"] == AUTO_IMAGE {
                own.as_object_mut()
                    .and_then(|own| own.shift_remove("image"));
            }
            let overlay = json!({"spec": {list: [own.clone()]}});
            merge::merge(&mut pod, &overlay).map_err(Problem::Other)?;
            let entries = found.entry(list).or_insert_with(|| json!([]));
            if let Some(entries) = entries.as_array_mut() {
                entries.push(own);
            }
        }
    }
    if status.is_none() && !found.is_empty() {
        let mut found = Value::Object(found);
        // A pod that was restored from its record may have its fields in another order.
        found.sort_all_objects();
        containers::set_metadata(&mut pod, "annotations", OVERRIDES, &found.to_string());
    }
    Ok(pod)
}

/// The pod's own container for one of the template.
pub(crate) fn own_container<'a>(
    original: &'a Value,
    recorded: &'a Value,
    list: &str,
    container: &Value,
    was_injected: bool,
) -> Option<&'a Value> {
    let name = container["name"].as_str()?;
    let recorded = recorded[list].as_array().map_or(&[][..], Vec::as_slice);
    let recorded = recorded.iter().find(|recorded| recorded["name"] == name);
    if recorded.is_some() || was_injected {
        return recorded;
    }
    match list {
        CONTAINERS => containers::find(original, list, name),
        _ => containers::find_any(original, name),
    }
}
