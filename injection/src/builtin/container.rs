//! The proxy's container.

use serde_json::{Map, Value, json};

use super::{
    CONTAINER, Config, Resources,
    bootstrap::Bootstrap,
    choices::Choices,
    ports::{HEALTH, STATS},
};

/// The proxy's UID and GID, which the agent exempts.
const PROXY_ID: u32 = 1337;

pub(super) fn proxy(choices: &Choices, config: &Config) -> Value {
    let mut container = json!({
        "name": CONTAINER,
        "image": choices.image,
        "command": ["/usr/local/bin/envoy"],
        "args": arguments(choices, config),
        "ports": [{"containerPort": STATS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": probe(15, 4),
        "resources": resources(&choices.resources),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_ID,
            "runAsNonRoot": true,
            "runAsUser": PROXY_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // Ten minutes, as in Istio's template. The containers after a native sidecar start when
        // this succeeds.
        "startupProbe": probe(1, 600),
    });
    if choices.is_native {
        container["restartPolicy"] = json!("Always");
    }
    container
}

/// Envoy's command line. The configuration is part of it: no `ConfigMap` in each namespace, and no
/// volume.
fn arguments(choices: &Choices, config: &Config) -> Vec<String> {
    let bootstrap = config
        .bootstrap
        .clone()
        .unwrap_or_else(|| Bootstrap::default().configuration());
    let mut arguments = vec![
        "--config-yaml".to_owned(),
        literal(&bootstrap.to_string()),
        "--disable-hot-restart".to_owned(),
        "--log-level".to_owned(),
        literal(&choices.log_level),
    ];
    let mut add = |flag: &str, value: &str| arguments.extend([flag.to_owned(), literal(value)]);
    if let Some(levels) = &choices.component_log_level {
        add("--component-log-level", levels);
    }
    if choices.concurrency > 0 {
        add("--concurrency", &choices.concurrency.to_string());
    }
    arguments
}

/// kubelet expands `$(NAME)` in arguments, and reads `$$` as `$`.
fn literal(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn probe(period: u32, failure_threshold: u32) -> Value {
    json!({
        "failureThreshold": failure_threshold,
        "httpGet": {"path": "/healthz/ready", "port": HEALTH},
        "periodSeconds": period,
        "timeoutSeconds": 3,
    })
}

fn resources(resources: &Resources) -> Value {
    let mut result = Map::new();
    let kinds = [
        ("limits", &resources.cpu_limit, &resources.memory_limit),
        (
            "requests",
            &resources.cpu_request,
            &resources.memory_request,
        ),
    ];
    for (kind, cpu, memory) in kinds {
        for (resource, quantity) in [("cpu", cpu), ("memory", memory)] {
            if !quantity.is_empty() {
                let entry = result.entry(kind).or_insert_with(|| json!({}));
                entry[resource] = json!(quantity);
            }
        }
    }
    Value::Object(result)
}
