//! The user of the pod's own istio-proxy, which istio-init and istio-validation have to know.

use serde_json::{Value, json};

use super::{
    CONTAINERS, INIT, INIT_CONTAINERS, PROXY, VALIDATION, containers, proxy_config::ProxyConfig,
};
use crate::{overrides, refusal::Problem, status::Status};

/// The annotation that chooses the interception mode.
const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";

/// Adapts `pod`, which has the settings of the `original`'s own istio-proxy.
pub(super) fn adjust(
    pod: &mut Value,
    original: &Value,
    proxy_config: &ProxyConfig,
) -> Result<(), Problem> {
    let recorded = overrides::recorded(original)?;
    let own = own_proxy(original, &recorded);
    if let Some(context) = own.map(|own| &own["securityContext"]) {
        adjust_users(pod, context, proxy_config);
    }
    Ok(())
}

/// The pod's own istio-proxy.
fn own_proxy<'a>(original: &'a Value, recorded: &'a Value) -> Option<&'a Value> {
    let status = Status::of(original);
    let proxy = json!({"name": PROXY});
    let found = [CONTAINERS, INIT_CONTAINERS].into_iter().find_map(|list| {
        let was_injected = status
            .as_ref()
            .is_some_and(|status| status.names(list, &proxy));
        let own = overrides::own_container(original, recorded, list, &proxy, was_injected);
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
