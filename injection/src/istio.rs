//! The sidecar of Istio's template: the pods that istiod's injector makes, from the same `ConfigMaps`.
//!
//! The order of `injectPod` is kept: check the annotations, render the templates, merge the result
//! into the pod, let the pod's own containers win, then probes, Prometheus and the order of
//! containers. Where the result differs from Istio's, `docs/differences.md` says so.

use serde_json::Value;

use crate::{
    Subject,
    containers::{self, CONTAINERS, INIT_CONTAINERS, PROXY},
    merge, overrides, pod,
    refusal::{Problem, Refusal},
};

mod annotations;
mod api_access;
mod config;
mod context;
mod data;
mod engine;
mod environment;
mod functions;
mod images;
mod memo;
mod mesh;
mod metadata;
mod names;
mod openshift;
mod order;
mod overlay;
mod probes;
mod prometheus;
mod proxy_config;
mod proxy_configs;
mod render;
mod strip;
mod text;
mod users;
mod yaml;

#[cfg(test)]
mod tests;

pub use config::{AnnotationCheck, Config, ConfigError, Interception, Options, Part, Sources};
pub use memo::MemoCounts;
pub use proxy_configs::ProxyConfigs;

/// The init container that adds the iptables rules.
const INIT: &str = "istio-init";
/// The init container that checks that istio-cni added them.
const VALIDATION: &str = "istio-validation";

/// `pod` with the sidecar, and warnings for its owner.
pub fn inject(
    pod: &Value,
    subject: &Subject,
    config: &Config,
) -> Result<(Value, Vec<String>), Refusal> {
    pod::check_shape(pod)?;
    let mut original = pod.clone();
    if let Some(metadata) = original["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
    }
    openshift::release_assigned_user(&mut original, subject);
    annotations::check(&original, config)?;
    inject_checked(&original, subject, config).map_err(|problem| Refusal(vec![problem]))
}

fn inject_checked(
    original: &Value,
    subject: &Subject,
    config: &Config,
) -> Result<(Value, Vec<String>), Problem> {
    let resources = &config.options.proxy_configs;
    let proxy_config = config
        .mesh
        .proxy_config_of(original, &subject.namespace, resources)?;
    let environment = environment::of(original, subject, config);
    let context = context::Context {
        config,
        subject,
        proxy_config: &proxy_config,
    };
    let rendered = render::render(original, &context)?;
    let mut injected = overrides::apply(rendered.pod, &rendered.template_pod, original)?;
    users::adjust(&mut injected, original, &proxy_config)?;
    if let Some(proxy) = containers::sidecar_mut(&mut injected) {
        containers::set_environment(proxy, &environment);
    }
    prometheus::merge(&mut injected, &config.mesh)?;
    probes::rewrite(&mut injected, config);
    metadata::record(&mut injected, &rendered.template_pod, &environment, config);
    order::arrange(
        &mut injected,
        proxy_config.holds_application() || config.holds_application(),
    );
    Ok((injected, warnings(original)))
}

/// What works, but not as the pod's owner may expect.
fn warnings(pod: &Value) -> Vec<String> {
    let policy = pod["spec"]["dnsPolicy"].as_str().unwrap_or("ClusterFirst");
    if policy == "ClusterFirst" {
        return Vec::new();
    }
    vec![format!(
        "dnsPolicy is {policy}, not ClusterFirst: the proxy may not find the control plane"
    )]
}
