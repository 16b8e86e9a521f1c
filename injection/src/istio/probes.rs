//! Probes of the application, which pilot-agent does: the kubelet has no certificate of the mesh, and
//! a TCP probe of a redirected port only reaches the proxy.

use serde_json::{Map, Value, json};

use super::{CONTAINERS, INIT_CONTAINERS, PROXY, config::Config, containers, text};
use crate::{annotation_values, handlers, status::STATUS};

/// The variable with the original probes.
const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// The annotation that decides for the pod.
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// The annotation of pilot-agent's port.
const STATUS_PORT: &str = "status.sidecar.istio.io/port";
/// The first release whose pilot-agent serves lifecycle hooks.
const LIFECYCLE_SINCE: u32 = 25;

/// The actions of probes, with their fields in the order of Go's structs.
const ACTIONS: &[(&str, &[&str])] = &[
    (
        "httpGet",
        &["path", "port", "host", "scheme", "httpHeaders"],
    ),
    ("tcpSocket", &["port", "host"]),
    ("grpc", &["port", "service"]),
];

/// A probe or a hook of a container.
struct Place {
    pointer: &'static str,
    /// The path at which pilot-agent serves it.
    path: &'static str,
    name: &'static str,
}

const PLACES: &[Place] = &[
    Place {
        pointer: "/readinessProbe",
        path: "app-health",
        name: "readyz",
    },
    Place {
        pointer: "/livenessProbe",
        path: "app-health",
        name: "livez",
    },
    Place {
        pointer: "/startupProbe",
        path: "app-health",
        name: "startupz",
    },
    Place {
        pointer: "/lifecycle/preStop",
        path: "app-lifecycle",
        name: "prestopz",
    },
    Place {
        pointer: "/lifecycle/postStart",
        path: "app-lifecycle",
        name: "poststartz",
    },
];

impl Place {
    fn is_hook(&self) -> bool {
        self.path == "app-lifecycle"
    }
}

/// Points the probes of all containers but the proxy to pilot-agent.
pub(super) fn rewrite(pod: &mut Value, config: &Config) {
    let chosen = containers::annotation(pod, REWRITE).and_then(annotation_values::bool);
    let Some(proxy) = containers::find_any(pod, PROXY) else {
        return;
    };
    if !chosen.unwrap_or_else(|| config.rewrites_probes()) {
        return;
    }
    let hooks = serves_hooks(proxy["image"].as_str().unwrap_or_default());
    let mesh_port = config.mesh.proxy.status_port();
    let port = containers::annotation(pod, STATUS_PORT).and_then(|port| port.trim().parse().ok());
    let ports = [mesh_port, port.unwrap_or(mesh_port)];
    let was_injected = containers::annotation(pod, STATUS).is_some();
    let mut probers = Map::new();
    // The order of Istio: a container of the same name in the other list wins.
    for list in [INIT_CONTAINERS, CONTAINERS] {
        for container in containers::of_mut(pod, list) {
            if container["name"] != PROXY {
                rewrite_container(container, ports, hooks, &mut probers);
            }
        }
    }
    if let Some(proxy) = containers::sidecar_mut(pod).filter(|_| !probers.is_empty()) {
        set_variable(proxy, probers, was_injected);
    }
}

fn rewrite_container(
    container: &mut Value,
    ports: [i64; 2],
    hooks: bool,
    probers: &mut Map<String, Value>,
) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let named_ports = handlers::named_ports(container);
    for place in PLACES {
        let path = format!("/{}/{name}/{}", place.path, place.name);
        let Some(handler) = container.pointer_mut(place.pointer) else {
            continue;
        };
        let Some(action) = action(handler, place).filter(|_| hooks || !place.is_hook()) else {
            continue;
        };
        if handlers::has_host(&handler[action]) {
            // The probe of another host, which pilot-agent does not do.
            continue;
        }
        let is_rewritten = handler[action]["path"] == path.as_str();
        if let Some(port) = handlers::port(&handler[action], &named_ports) {
            let is_ours = port == ports[0] || is_rewritten && port == ports[1];
            if !is_ours || action == "grpc" {
                probers.insert(path.clone(), prober(handler, action, port));
            }
        }
        handlers::redirect(handler, action, &path, ports[1]);
    }
}

/// The first action of the handler that pilot-agent can do.
fn action(handler: &Value, place: &Place) -> Option<&'static str> {
    let actions = ACTIONS.iter().map(|(action, _)| *action);
    let mut possible = actions.filter(|action| !place.is_hook() || *action != "grpc");
    possible.find(|action| handler[action].is_object())
}

/// What pilot-agent has to do.
fn prober(handler: &Value, action: &str, port: i64) -> Value {
    let fields = ACTIONS.iter().find(|(name, _)| *name == action);
    let mut described = Map::new();
    for field in fields.map_or(&[][..], |(_, fields)| fields) {
        match (*field, &handler[action][*field]) {
            ("port", _) => {
                described.insert("port".to_owned(), port.into());
            }
            // Go writes it even if it is absent.
            ("service", service) => {
                described.insert("service".to_owned(), service.clone());
            }
            (_, Value::Null) => {}
            (field, value) => {
                described.insert(field.to_owned(), value.clone());
            }
        }
    }
    let mut prober = json!({action: described});
    if handler["timeoutSeconds"]
        .as_i64()
        .is_some_and(|timeout| timeout != 0)
    {
        prober["timeoutSeconds"] = handler["timeoutSeconds"].clone();
    }
    prober
}

/// Sets the variable. Probes of an earlier injection are kept: the pod no longer has them.
fn set_variable(proxy: &mut Value, mut probers: Map<String, Value>, was_injected: bool) {
    let old = containers::variable(proxy, VARIABLE).filter(|_| was_injected);
    let old: Option<Map<String, Value>> = old.and_then(|old| serde_json::from_str(old).ok());
    probers.extend(old.unwrap_or_default());
    probers.sort_keys();
    let value = text::json(&Value::Object(probers));
    let variables = proxy["env"].as_array_mut();
    let variable = variables.and_then(|list| list.iter_mut().find(|v| v["name"] == VARIABLE));
    match variable.filter(|_| was_injected) {
        Some(variable) => variable["value"] = json!(value),
        None => containers::push_variable(proxy, VARIABLE, &value),
    }
}

/// Whether the proxy's pilot-agent serves lifecycle hooks. A tag that is no release is taken for a
/// new one.
fn serves_hooks(image: &str) -> bool {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let tag = image.rsplit_once('/').map_or(image, |(_, name)| name);
    let minor = tag.split_once(":1.").and_then(|(_, rest)| {
        let end = rest.find(|character: char| !character.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse::<u32>().ok()
    });
    minor.is_none_or(|minor| minor >= LIFECYCLE_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(container: &Value, ports: [i64; 2]) -> (Value, Map<String, Value>) {
        let mut container = container.clone();
        let mut probers = Map::new();
        rewrite_container(&mut container, ports, true, &mut probers);
        (container, probers)
    }

    const PORTS: [i64; 2] = [15020, 15020];

    #[test]
    fn all_kinds_of_probes_are_rewritten() {
        let container = json!({
            "name": "a",
            "ports": [{"name": "web", "containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": "web", "scheme": "HTTPS"}, "timeoutSeconds": 3},
            "livenessProbe": {"tcpSocket": {"port": 81}, "periodSeconds": 5},
            "startupProbe": {"grpc": {"port": 82}},
            "lifecycle": {
                "preStop": {"httpGet": {"port": 83, "path": "/x"}},
                "postStart": {"exec": {"command": ["a"]}},
            },
        });
        let (container, probers) = rewritten(&container, PORTS);
        let request = |path| json!({"path": path, "port": 15020});
        assert_eq!(
            container["readinessProbe"],
            json!({
                "httpGet": {"port": 15020, "scheme": "HTTP", "path": "/app-health/a/readyz"}, "timeoutSeconds": 3
            })
        );
        assert_eq!(
            container["livenessProbe"],
            json!({
                "periodSeconds": 5, "httpGet": request("/app-health/a/livez")
            })
        );
        assert_eq!(
            container["startupProbe"],
            json!({"httpGet": request("/app-health/a/startupz")})
        );
        assert_eq!(
            container["lifecycle"]["preStop"]["httpGet"]["path"],
            "/app-lifecycle/a/prestopz"
        );
        assert_eq!(
            container["lifecycle"]["postStart"],
            json!({"exec": {"command": ["a"]}})
        );
        assert_eq!(
            Value::Object(probers),
            json!({
                "/app-health/a/readyz": {"httpGet": {"port": 80, "scheme": "HTTPS"}, "timeoutSeconds": 3},
                "/app-health/a/livez": {"tcpSocket": {"port": 81}},
                "/app-health/a/startupz": {"grpc": {"port": 82, "service": null}},
                "/app-lifecycle/a/prestopz": {"httpGet": {"path": "/x", "port": 83}},
            })
        );
    }

    #[test]
    fn a_second_time_changes_nothing() {
        for (ports, port) in [
            (PORTS, json!("unknown")),
            ([15020, 7], json!("unknown")),
            ([15020, 7], json!(80)),
        ] {
            let container = json!({"name": "a", "readinessProbe": {"httpGet": {"port": port}}});
            let (once, _) = rewritten(&container, ports);
            let (twice, probers) = rewritten(&once, ports);
            assert_eq!((once, probers), (twice, Map::new()));
        }
    }

    #[test]
    fn probes_of_another_host_are_left_alone() {
        let container =
            json!({"name": "a", "readinessProbe": {"httpGet": {"port": 1, "host": "h"}}});
        assert_eq!(rewritten(&container, PORTS), (container, Map::new()));
    }

    #[test]
    fn earlier_probes_are_kept() {
        let mut proxy = json!({"env": [{"name": VARIABLE, "value": r#"{"/b":1,"/a":2}"#}]});
        let new = || json!({"/c": 3, "/b": 4}).as_object().cloned().unwrap();
        set_variable(&mut proxy, new(), true);
        assert_eq!(
            containers::variable(&proxy, VARIABLE),
            Some(r#"{"/a":2,"/b":1,"/c":3}"#)
        );
        let mut proxy = json!({});
        set_variable(&mut proxy, new(), false);
        assert_eq!(
            containers::variable(&proxy, VARIABLE),
            Some(r#"{"/b":4,"/c":3}"#)
        );
    }

    #[test]
    fn old_agents_serve_no_hooks() {
        for (image, serves) in [
            ("istio/proxyv2:1.24.3", false),
            ("localhost:1.5/x/proxyv2:1.25.0-distroless", true),
            ("istio/proxyv2:1.24-debug@sha256:00", false),
            ("istio/proxyv2:latest", true),
            ("istio/proxyv2", true),
        ] {
            assert_eq!(serves_hooks(image), serves, "{image}");
        }
    }
}
