//! What a pod chooses by its annotations, over the configuration.

use serde::Deserialize;
use serde_json::Value;

use super::{Config, Resources};
use crate::{pod::annotation, refusal::Problem};

const MODE: &str = "sidecar.istio.io/interceptionMode";
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The effective choices for one pod.
pub(super) struct Choices {
    pub(super) image: String,
    pub(super) is_native: bool,
    pub(super) resources: Resources,
    pub(super) concurrency: u32,
    pub(super) log_level: String,
    /// `--component-log-level`
    pub(super) component_log_level: Option<String>,
}

/// The fields of Istio's `ProxyConfig` that apply to the built-in sidecar.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    concurrency: Option<u32>,
    hold_application_until_proxy_starts: Option<bool>,
}

impl Choices {
    /// All problems at once.
    pub(super) fn of(pod: &Value, config: &Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let text = |name, default: &str| annotation(pod, name).unwrap_or(default).to_owned();
        if let Some(mode @ "TPROXY") = annotation(pod, MODE) {
            problems.push(problem(
                MODE,
                mode,
                "the built-in sidecar has no CAP_NET_ADMIN, which TPROXY requires: use REDIRECT, \
                 or inject with Istio's template",
            ));
        }
        let proxy_config = proxy_config(pod).unwrap_or_else(|problem| {
            problems.push(problem);
            ProxyConfig::default()
        });
        let is_native = native(pod, config.is_native).unwrap_or_else(|problem| {
            problems.push(problem);
            config.is_native
        });
        let hold = proxy_config.hold_application_until_proxy_starts;
        if hold.unwrap_or(config.hold) && !is_native {
            problems.push(Problem::Other(
                "holdApplicationUntilProxyStarts requires a native sidecar: the Envoy image has \
                 no command that waits. Use Kubernetes 1.29 or later with native sidecars, or \
                 inject with Istio's template"
                    .to_owned(),
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            image: text("sidecar.istio.io/proxyImage", &config.image),
            is_native,
            resources: resources(pod).unwrap_or_else(|| config.resources.clone()),
            concurrency: proxy_config.concurrency.unwrap_or(config.concurrency),
            log_level: text("sidecar.istio.io/logLevel", &config.log_level),
            component_log_level: annotation(pod, "sidecar.istio.io/componentLogLevel")
                .map(str::to_owned),
        })
    }
}

fn native(pod: &Value, default: bool) -> Result<bool, Problem> {
    match annotation(pod, NATIVE) {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(problem(NATIVE, other, "give \"true\" or \"false\"")),
    }
}

fn proxy_config(pod: &Value) -> Result<ProxyConfig, Problem> {
    let text = annotation(pod, PROXY_CONFIG).unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(ProxyConfig::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        problem(PROXY_CONFIG, text, &format!("not a ProxyConfig: {first}"))
    })
}

/// The resources of a pod that sets any of them: those only, as in Istio's template.
fn resources(pod: &Value) -> Option<Resources> {
    let of = |name: &str| {
        let value = annotation(pod, &format!("sidecar.istio.io/proxy{name}"));
        value.unwrap_or_default().to_owned()
    };
    let resources = Resources {
        cpu_request: of("CPU"),
        memory_request: of("Memory"),
        cpu_limit: of("CPULimit"),
        memory_limit: of("MemoryLimit"),
    };
    (resources != Resources::default()).then_some(resources)
}

fn problem(name: &str, value: &str, problem: &str) -> Problem {
    Problem::Annotation {
        name: name.to_owned(),
        value: value.to_owned(),
        problem: problem.to_owned(),
    }
}
