//! The proxy's container.

use serde_json::{Map, Value, json};

use super::{
    CONTAINER, Config, Resources,
    bootstrap::{Bootstrap, Probe},
    choices::{Choices, Readiness},
    ports::{HEALTH, STATS},
    texts,
};

/// The proxy's UID and GID, which the agent exempts.
const PROXY_ID: u32 = 1337;

/// The variable with the pod's address, which kubelet expands in arguments.
const POD_IP: &str = "INSTANCE_IP";

pub(super) fn proxy(choices: &Choices, config: &Config, probes: Vec<Probe>) -> Value {
    let has_probes = !probes.is_empty();
    let mut container = json!({
        "name": CONTAINER,
        "image": choices.image,
        "command": ["/usr/local/bin/envoy"],
        "args": arguments(choices, config, probes),
        "ports": [{"containerPort": STATS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": readiness_probe(&choices.readiness),
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
    if has_probes {
        let source = json!({"fieldRef": {"fieldPath": "status.podIP"}});
        container["env"] = json!([{"name": POD_IP, "valueFrom": source}]);
    }
    if choices.is_native {
        container["restartPolicy"] = json!("Always");
    }
    container
}

/// Envoy's command line. The configuration is part of it: no `ConfigMap` in each namespace, and no
/// volume.
fn arguments(choices: &Choices, config: &Config, probes: Vec<Probe>) -> Vec<String> {
    let mut arguments = vec![
        "--config-yaml".to_owned(),
        configuration(config, probes),
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

fn configuration(config: &Config, probes: Vec<Probe>) -> String {
    match &config.bootstrap {
        Some(bootstrap) => literal(&bootstrap.to_string()),
        None => texts::find_or_make(probes, own_configuration),
    }
}

fn own_configuration(probes: Vec<Probe>) -> String {
    let pod_ip = format!("$({POD_IP})");
    let bootstrap = Bootstrap {
        probes,
        pod_ip: pod_ip.clone(),
        ..Bootstrap::default()
    };
    let text = literal(&bootstrap.configuration().to_string());
    text.replace(&literal(&pod_ip), &pod_ip)
}

/// kubelet expands `$(NAME)` in arguments, and reads `$$` as `$`.
fn literal(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn readiness_probe(choices: &Readiness) -> Value {
    let mut probe = probe(choices.period, choices.failure_threshold);
    if choices.initial_delay > 0 {
        probe["initialDelaySeconds"] = json!(choices.initial_delay);
    }
    probe
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
