//! The order of containers.

use serde_json::Value;

use super::{CONTAINERS, INIT, INIT_CONTAINERS, PROXY, VALIDATION, containers};
use crate::containers::move_to;

/// Allows core dumps, in old releases.
const CORE_DUMP: &str = "enable-core-dump";

/// Puts the proxy last among the containers, so that it is not the default of `kubectl exec`, or
/// first if the application waits for it.
///
/// A native sidecar starts before the pod's own init containers, which are then in the mesh.
/// Without it, istio-init is the last init container, so that the others keep their network.
pub(super) fn arrange(pod: &mut Value, holds_application: bool) {
    move_to(pod, CONTAINERS, PROXY, holds_application);
    if containers::find(pod, INIT_CONTAINERS, PROXY).is_some() {
        for name in [CORE_DUMP, PROXY, VALIDATION, INIT] {
            move_to(pod, INIT_CONTAINERS, name, true);
        }
    } else {
        move_to(pod, INIT_CONTAINERS, VALIDATION, true);
        move_to(pod, INIT_CONTAINERS, INIT, false);
        move_to(pod, INIT_CONTAINERS, CORE_DUMP, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arranged(containers: &[&str], init: &[&str], holds: bool) -> (String, String) {
        let list_of =
            |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
        let mut pod =
            json!({"spec": {CONTAINERS: list_of(containers), INIT_CONTAINERS: list_of(init)}});
        arrange(&mut pod, holds);
        let names = |list| {
            let names = containers::of(&pod, list)
                .iter()
                .filter_map(|c| c["name"].as_str());
            names.collect::<Vec<_>>().join(" ")
        };
        (names(CONTAINERS), names(INIT_CONTAINERS))
    }

    #[test]
    fn the_proxy_is_last_or_holds_the_application() {
        let (containers, init) =
            arranged(&[PROXY, "a"], &[INIT, CORE_DUMP, "b", VALIDATION], false);
        assert_eq!(containers, "a istio-proxy");
        assert_eq!(init, "istio-validation b istio-init enable-core-dump");
        assert_eq!(arranged(&["a", PROXY], &[], true).0, "istio-proxy a");
    }

    #[test]
    fn a_native_sidecar_is_before_other_init_containers() {
        let (_, init) = arranged(&["a"], &["b", CORE_DUMP, PROXY, INIT], false);
        assert_eq!(init, "istio-init istio-proxy enable-core-dump b");
    }
}
