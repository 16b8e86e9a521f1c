//! The built-in sidecar: an Envoy with a static configuration, for clusters without istiod.
//!
//! It captures and observes; it has no mTLS and no configuration from a control plane. It needs no
//! init container, no capability and no volume, and passes the Pod Security Standard `restricted`.

use serde_json::{Value, json};

use crate::{
    containers::{CONTAINERS, INIT_CONTAINERS},
    pod::annotations_mut,
    refusal::{Problem, Refusal},
    status::{STATUS, Status},
};

pub mod bootstrap;
mod choices;
mod container;
mod own;
pub mod ports;
mod probes;
mod texts;
mod warnings;

use choices::Choices;

/// The name of the proxy's container.
pub const CONTAINER: &str = crate::containers::PROXY;

/// The configuration of the built-in sidecar.
#[derive(Clone, Debug)]
pub struct Config {
    /// The image. Its command must be `/usr/local/bin/envoy`.
    pub image: String,
    /// Whether the proxy is a native sidecar: an init container that keeps running. The annotation
    /// `sidecar.istio.io/nativeSidecar` of a pod takes precedence.
    pub is_native: bool,
    /// Whether the app's containers start after the proxy is ready.
    pub hold: bool,
    /// The proxy's resources.
    pub resources: Resources,
    /// The number of Envoy's worker threads. 0: one for each CPU of the node.
    pub concurrency: u32,
    /// Envoy's log level.
    pub log_level: String,
    /// Replaces the built-in configuration of Envoy.
    pub bootstrap: Option<Value>,
}

impl Default for Config {
    /// Istio's resources and log level, and a native sidecar.
    fn default() -> Self {
        Self {
            image: "docker.io/envoyproxy/envoy:distroless-v1.40.0".to_owned(),
            is_native: true,
            hold: false,
            resources: Resources {
                cpu_request: "100m".to_owned(),
                memory_request: "128Mi".to_owned(),
                cpu_limit: "2000m".to_owned(),
                memory_limit: "1024Mi".to_owned(),
            },
            concurrency: 2,
            log_level: "warning".to_owned(),
            bootstrap: None,
        }
    }
}

/// Resources of a container, as Kubernetes quantities. An empty one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `requests.cpu`
    pub cpu_request: String,
    /// `requests.memory`
    pub memory_request: String,
    /// `limits.cpu`
    pub cpu_limit: String,
    /// `limits.memory`
    pub memory_limit: String,
}

/// Returns `pod` with the sidecar, and warnings for the pod's owner.
///
/// `pod` must have been stripped of an earlier sidecar.
pub fn inject(pod: &Value, config: &Config) -> Result<(Value, Vec<String>), Refusal> {
    let choices = Choices::of(pod, config).map_err(Refusal)?;
    let injected = inject_chosen(pod, config, &choices);
    injected.map_err(|problem| Refusal(vec![problem]))
}

fn inject_chosen(
    pod: &Value,
    config: &Config,
    choices: &Choices,
) -> Result<(Value, Vec<String>), Problem> {
    let own = own::container(pod)?;
    let mut warnings = warnings::of(pod, choices);
    let mut injected = pod.clone();
    let mut probed = Vec::new();
    if probes::are_wanted(pod) {
        // Only the built-in configuration can serve them.
        if config.bootstrap.is_none() && !own::has_command_line(own.as_ref()) {
            probed = probes::rewrite(&mut injected);
        } else if probes::exist(pod) {
            warnings.push(
                "TCP probes of the pod always succeed: the proxy accepts them, and its \
                 configuration is not the built-in one, which would connect to the app"
                    .to_owned(),
            );
        }
    }
    let proxy = container::proxy(choices, config, probed);
    let list = if choices.is_native {
        INIT_CONTAINERS
    } else {
        CONTAINERS
    };
    let mut injected = own::merged(&injected, list, proxy, own.as_ref())?;
    let names = Some(vec![CONTAINER.to_owned()]);
    let (init_containers, containers) = if choices.is_native {
        (names, None)
    } else {
        (None, names)
    };
    let status = Status {
        init_containers,
        containers,
        revision: "default".to_owned(),
        ..Status::default()
    };
    annotations_mut(&mut injected).insert(STATUS.to_owned(), json!(status.to_string()));
    Ok((injected, warnings))
}

#[cfg(test)]
mod tests;
