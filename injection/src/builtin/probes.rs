//! TCP probes of the app's containers. Behind a proxy they would always succeed: the kubelet's
//! connection is captured, and the proxy accepts it before it connects to the app.
//!
//! They become HTTP requests to the proxy, which connects to the probe's port itself. HTTP and gRPC
//! probes need no change: they succeed only if the app responds.

use serde_json::Value;

use super::{bootstrap::Probe, ports::PROBES};
use crate::{
    annotation_values,
    containers::{self, CONTAINERS, INIT_CONTAINERS, PROXY},
    handlers,
    pod::annotation,
    record::UNDO,
    refusal::Problem,
};

/// The annotation that decides for the pod.
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";

/// The probes of a container, and the last part of their path at the proxy, as in Istio.
const NAMES: [(&str, &str); 3] = [
    ("readinessProbe", "readyz"),
    ("livenessProbe", "livez"),
    ("startupProbe", "startupz"),
];

/// The start of their paths at the proxy.
const PREFIX: &str = "/app-health/";

const TCP: &str = "tcpSocket";

/// Kubernetes' defaults, in seconds.
const PERIOD: u64 = 10;
const TIMEOUT: u64 = 1;

/// Whether the pod's TCP probes are to be rewritten.
pub(super) fn are_wanted(pod: &Value) -> bool {
    let chosen = annotation(pod, REWRITE).and_then(annotation_values::bool);
    chosen.unwrap_or(true)
}

/// Whether the pod has a probe that [`rewrite`] changes.
pub(super) fn exist(pod: &Value) -> bool {
    !rewrite(&mut pod.clone()).is_empty()
}

/// Sends the TCP probes of all containers to the proxy, and returns what it has to probe.
pub(super) fn rewrite(pod: &mut Value) -> Vec<Probe> {
    let mut probes = Vec::new();
    for list in [INIT_CONTAINERS, CONTAINERS] {
        let others = containers::of_mut(pod, list).iter_mut();
        for container in others.filter(|container| container["name"] != PROXY) {
            probes.extend(rewrite_container(container));
        }
    }
    probes
}

/// Probes that an earlier injection sent to the proxy, and whose originals are lost with its record:
/// they would always fail.
pub(super) fn dangling(pod: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for container in [INIT_CONTAINERS, CONTAINERS]
        .into_iter()
        .flat_map(|list| containers::of(pod, list))
    {
        for (field, _) in NAMES {
            let request = &container[field]["httpGet"];
            let path = request["path"].as_str().unwrap_or_default();
            if path.starts_with(PREFIX) && request["port"] == PROBES {
                problems.push(Problem::Other(format!(
                    "{field} of container {} is a request to the proxy, which an earlier injection \
                     made of a TCP probe, and the annotation {UNDO} with the original is missing: \
                     write the probe again",
                    container["name"]
                )));
            }
        }
    }
    problems
}

fn rewrite_container(container: &mut Value) -> Vec<Probe> {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let named_ports = handlers::named_ports(container);
    let rewritten = NAMES.iter().filter_map(|(field, path)| {
        let handler = container.get_mut(field)?;
        let action = handler.get(TCP).filter(|action| action.is_object())?;
        if handlers::has_host(action) {
            return None;
        }
        let port = u16::try_from(handlers::port(action, &named_ports)?).ok()?;
        let seconds = |field: &str, default| match handler[field].as_u64() {
            None | Some(0) => default,
            Some(seconds) => seconds,
        };
        let probe = Probe {
            path: format!("{PREFIX}{name}/{path}"),
            port,
            period: seconds("periodSeconds", PERIOD),
            timeout: seconds("timeoutSeconds", TIMEOUT),
        };
        handlers::redirect(handler, TCP, &probe.path, PROBES.into());
        Some(probe)
    });
    rewritten.collect()
}
