//! Handlers of probes and lifecycle hooks: what the kubelet does, and at which port.

use serde_json::{Map, Value, json};

/// The numbers of the container's named ports.
pub(crate) fn named_ports(container: &Value) -> Map<String, Value> {
    let ports = container["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|port| {
            Some((
                port["name"].as_str()?.to_owned(),
                port["containerPort"].clone(),
            ))
        })
        .collect()
}

/// The number of an action's port; none for a name that the container does not have.
pub(crate) fn port(action: &Value, named_ports: &Map<String, Value>) -> Option<i64> {
    match &action["port"] {
        Value::String(name) => named_ports.get(name)?.as_i64(),
        number => number.as_i64(),
    }
}

/// Whether the action connects to another host than the pod.
pub(crate) fn has_host(action: &Value) -> bool {
    action["host"].as_str().is_some_and(|host| !host.is_empty())
}

/// Replaces the `action` of `handler` by an HTTP request to the proxy.
pub(crate) fn redirect(handler: &mut Value, action: &str, path: &str, port: i64) {
    if action != "httpGet" {
        handler
            .as_object_mut()
            .and_then(|handler| handler.shift_remove(action));
        handler["httpGet"] = json!({"path": path, "port": port});
        return;
    }
    let request = &mut handler["httpGet"];
    request["path"] = json!(path);
    request["port"] = json!(port);
    if request["scheme"] == "HTTPS" {
        // The kubelet uses no TLS with the proxy, which uses TLS with the application.
        request["scheme"] = json!("HTTP");
    }
}
