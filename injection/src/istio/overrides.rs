//! The pod's own settings of injected containers, which win over the templates.
//!
//! A pod may have a container of an injected name, with `image: auto`. Its settings are kept in an
//! annotation, so that they also win when the pod is injected again: Istio loses them then.

use serde_json::{Map, Value, json};

use super::{
    CONTAINERS, INIT, INIT_CONTAINERS, PROXY, VALIDATION, config::Config, containers, merge,
    prometheus, proxy_config::ProxyConfig, status,
};
use crate::refusal::Problem;

/// The annotation with the pod's own containers of injected names.
pub(super) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// The annotation that chooses the interception mode.
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
/// The image of a container that has only overrides.
const AUTO_IMAGE: &str = "auto";

/// `pod` as it was before it was injected, as far as templates depend on it.
pub(super) fn strip(pod: &Value, config: &Config) -> Result<Value, Problem> {
    let mut stripped = pod.clone();
    let overrides = recorded(pod)?;
    let status = status::Status::of(pod);
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
        containers::remove_annotation(&mut stripped, status::STATUS);
    }
    Ok(stripped)
}

/// The annotation's value; an empty object without it.
fn recorded(pod: &Value) -> Result<Value, Problem> {
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
pub(super) fn apply(
    mut pod: Value,
    template_pod: &Value,
    original: &Value,
    proxy_config: &ProxyConfig,
) -> Result<Value, Problem> {
    let recorded = recorded(original)?;
    let status = status::Status::of(original);
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
        let text = Value::Object(found).to_string();
        containers::set_metadata(&mut pod, "annotations", OVERRIDES, &text);
    }
    let own = own_proxy(original, &recorded, status.as_ref());
    if let Some(context) = own.map(|own| &own["securityContext"]) {
        adjust_users(&mut pod, context, proxy_config);
    }
    Ok(pod)
}

/// The pod's own container for one of the template.
fn own_container<'a>(
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

/// The pod's own istio-proxy.
fn own_proxy<'a>(
    original: &'a Value,
    recorded: &'a Value,
    status: Option<&status::Status>,
) -> Option<&'a Value> {
    let proxy = json!({"name": PROXY});
    let found = [CONTAINERS, INIT_CONTAINERS].into_iter().find_map(|list| {
        let was_injected = status.is_some_and(|status| status.names(list, &proxy));
        let own = own_container(original, recorded, list, &proxy, was_injected);
        own.map(Some).or_else(|| was_injected.then_some(None))
    });
    found.flatten()
}

/// Lets istio-init and istio-validation know the user of the pod's own istio-proxy.
fn adjust_users(pod: &mut Value, context: &Value, proxy_config: &ProxyConfig) {
    let (user, group) = (&context["runAsUser"], &context["runAsGroup"]);
    let mut names = [INIT, VALIDATION].into_iter();
    let init = names.find(|name| containers::find(pod, INIT_CONTAINERS, name).is_some());
    let Some(init) = init.filter(|_| !user.is_null() || !group.is_null()) else {
        return;
    };
    let mode = containers::annotation(pod, INTERCEPTION_MODE);
    let is_tproxy = mode == Some("TPROXY") || proxy_config.interception_mode() == "TPROXY";
    if is_tproxy && !user.is_null() {
        // TPROXY needs root.
        if let Some(proxy) = containers::sidecar_mut(pod) {
            proxy["securityContext"]["runAsUser"] = json!(0);
        }
    }
    let Some(init) = containers::find_any_mut(pod, init) else {
        return;
    };
    if !is_tproxy && init["name"] == VALIDATION {
        for (name, id) in [("runAsUser", user), ("runAsGroup", group)] {
            if !id.is_null() {
                init["securityContext"][name] = id.clone();
            }
        }
    }
    set_user_argument(init, user);
}

/// Sets the user whose traffic is not redirected. It is never root's.
fn set_user_argument(init: &mut Value, user: &Value) {
    let Some(user) = user.as_i64().filter(|user| *user != 0) else {
        return;
    };
    let Some(arguments) = init["args"].as_array_mut() else {
        return;
    };
    let flag = arguments.iter().position(|argument| argument == "-u");
    if let Some(argument) = flag.and_then(|flag| arguments.get_mut(flag + 1)) {
        *argument = json!(user.to_string());
    }
}
