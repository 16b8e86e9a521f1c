//! The pod's own container `istio-proxy`, by which it changes the proxy: with `image: auto` and the
//! fields to change, as with Istio's template.

use serde_json::{Value, json};

use crate::{
    containers::{self, CONTAINERS, INIT_CONTAINERS, PROXY},
    merge, overrides,
    pod::{named, remove},
    refusal::Problem,
};

const PROBES: [&str; 3] = ["readinessProbe", "livenessProbe", "startupProbe"];
const ACTIONS: [&str; 4] = ["exec", "grpc", "httpGet", "tcpSocket"];

/// The pod's own container of the proxy, if it has one.
pub(super) fn container(pod: &Value) -> Result<Option<Value>, Problem> {
    let recorded = overrides::recorded(pod)?;
    let proxy = json!({"name": PROXY});
    let found = [INIT_CONTAINERS, CONTAINERS]
        .into_iter()
        .find_map(|list| overrides::own_container(pod, &recorded, list, &proxy, false));
    Ok(found.cloned())
}

/// A problem if the container cannot be the proxy that is to be injected.
pub(super) fn check(pod: &Value, is_native: bool) -> Result<(), Problem> {
    let is_in = |list| containers::find(pod, list, PROXY).is_some();
    let problem = match (is_in(INIT_CONTAINERS), is_in(CONTAINERS)) {
        (true, true) => format!("the pod has two containers {PROXY:?}: remove one"),
        (true, false) if !is_native => format!(
            "the pod has its own {PROXY:?} in initContainers, but the proxy is not a native \
             sidecar: move it to containers"
        ),
        _ => return Ok(()),
    };
    Err(Problem::Other(problem))
}

/// Whether the container replaces the command line with the proxy's configuration.
pub(super) fn has_command_line(own: Option<&Value>) -> bool {
    own.is_some_and(|own| {
        ["command", "args"]
            .iter()
            .any(|field| own[field].is_array())
    })
}

/// `pod` with the proxy in `list`, merged with its own container.
pub(super) fn merged(
    pod: &Value,
    list: &str,
    mut proxy: Value,
    own: Option<&Value>,
) -> Result<Value, Problem> {
    if let Some(own) = own {
        leave_out_conflicts(&mut proxy, own);
    }
    let overlay = json!({"spec": {list: [proxy]}});
    let mut injected = pod.clone();
    if list == INIT_CONTAINERS
        && let Some(own) = containers::take(&mut injected, CONTAINERS, PROXY)
    {
        containers::push(&mut injected, INIT_CONTAINERS, own);
    }
    merge::merge(&mut injected, &overlay).map_err(Problem::Other)?;
    let mut injected = overrides::apply(injected, &overlay, pod)?;
    // A native sidecar precedes the pod's own init containers, whose connections are captured too.
    containers::move_to(&mut injected, list, PROXY, list == INIT_CONTAINERS);
    Ok(injected)
}

/// Removes what would make the pod invalid: a second action of a probe, a second source of a variable,
/// and a request that is above a limit.
fn leave_out_conflicts(proxy: &mut Value, own: &Value) {
    for probe in PROBES {
        let has_action = ACTIONS.iter().any(|action| own[probe][action].is_object());
        if let Some(ours) = proxy.get_mut(probe).and_then(Value::as_object_mut)
            && has_action
        {
            ours.retain(|field, _| !ACTIONS.contains(&&**field));
        }
    }
    if let Some(variables) = proxy.get_mut("env").and_then(Value::as_array_mut) {
        let is_own = |name: &Value| {
            name.as_str()
                .is_some_and(|name| named(&own["env"], name).is_some())
        };
        variables.retain(|variable| !is_own(&variable["name"]));
    }
    for resource in ["cpu", "memory"] {
        let kinds = ["limits", "requests"];
        let is_set = kinds
            .iter()
            .any(|kind| !own["resources"][kind][resource].is_null());
        for kind in kinds.iter().filter(|_| is_set) {
            remove(proxy, &["resources", kind, resource]);
        }
    }
}
