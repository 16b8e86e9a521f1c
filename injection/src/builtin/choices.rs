//! What a pod chooses by its annotations, over the configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Config, Resources, own, probes};
use crate::{
    annotation_values,
    containers::{self, PROXY},
    pod::annotation,
    refusal::Problem,
};

const MODE: &str = "sidecar.istio.io/interceptionMode";
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
/// The variable of Istio's proxy by which the node agent captures DNS queries.
const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The effective choices for one pod.
pub(super) struct Choices {
    pub(super) image: String,
    pub(super) is_native: bool,
    pub(super) resources: Resources,
    pub(super) readiness: Readiness,
    pub(super) concurrency: u32,
    pub(super) log_level: String,
    /// `--component-log-level`
    pub(super) component_log_level: Option<String>,
    /// Fields of the pod's `ProxyConfig` that have no effect.
    pub(super) ineffective_config: Vec<String>,
}

/// When the proxy counts as ready.
pub(super) struct Readiness {
    pub(super) initial_delay: u32,
    pub(super) period: u32,
    pub(super) failure_threshold: u32,
}

/// The fields of Istio's `ProxyConfig` that apply to the built-in sidecar or to the node agent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProxyConfig {
    concurrency: Option<u32>,
    hold_application_until_proxy_starts: Option<bool>,
    interception_mode: Option<String>,
    proxy_metadata: BTreeMap<String, String>,
    /// Fields without an effect.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Choices {
    /// All problems at once.
    pub(super) fn of(pod: &Value, config: &Config) -> Result<Self, Vec<Problem>> {
        let mut problems = annotation_values::problems(pod, |name, value| match name {
            LOG_LEVEL => check_log_level(value),
            _ => annotation_values::check(name, value),
        });
        let text = |name, default: &str| annotation(pod, name).unwrap_or(default).to_owned();
        let proxy_config = proxy_config(pod).unwrap_or_else(|problem| {
            problems.push(problem);
            ProxyConfig::default()
        });
        problems.extend(unsupported(pod, &proxy_config));
        let is_native = match annotation(pod, NATIVE) {
            None => config.is_native,
            Some(native) => native == "true",
        };
        problems.extend(own::check(pod, is_native).err());
        problems.extend(probes::dangling(pod));
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
            readiness: readiness(pod),
            concurrency: proxy_config.concurrency.unwrap_or(config.concurrency),
            log_level: text(LOG_LEVEL, &config.log_level),
            component_log_level: annotation(pod, "sidecar.istio.io/componentLogLevel")
                .map(str::to_owned),
            ineffective_config: proxy_config.others.into_keys().collect(),
        })
    }
}

/// What only Istio's sidecar has.
fn unsupported(pod: &Value, proxy_config: &ProxyConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mode = annotation(pod, MODE).map(|mode| (MODE, mode));
    let by_config = proxy_config.interception_mode.as_deref();
    if let Some((name, mode @ "TPROXY")) = mode.or(by_config.map(|mode| (PROXY_CONFIG, mode))) {
        problems.push(problem(
            name,
            mode,
            "the built-in sidecar has no CAP_NET_ADMIN, which TPROXY requires: use REDIRECT, or \
             inject with Istio's template",
        ));
    }
    let is_set = |value: &str| annotation_values::bool(value) == Some(true);
    let dns = proxy_config.proxy_metadata.get(DNS_CAPTURE);
    let own = containers::find_any(pod, PROXY);
    let own = own.and_then(|own| containers::variable(own, DNS_CAPTURE));
    if dns.map(String::as_str).or(own).is_some_and(is_set) {
        problems.push(Problem::Other(format!(
            "{DNS_CAPTURE} is true, but the built-in sidecar has no DNS proxy: no name would be \
             resolved. Remove it, or inject with Istio's template"
        )));
    }
    problems
}

fn check_log_level(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 8] = [
        "trace", "debug", "info", "warn", "warning", "error", "critical", "off",
    ];
    if LEVELS.contains(&level) {
        return Ok(());
    }
    Err(format!("give one of {}", LEVELS.join(", ")))
}

/// The readiness probe of Istio's template, which annotations change.
fn readiness(pod: &Value) -> Readiness {
    let number = |name: &str, default| {
        let value = annotation(pod, &format!("readiness.status.sidecar.istio.io/{name}"));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    Readiness {
        initial_delay: number("initialDelaySeconds", 0),
        period: number("periodSeconds", 15).max(1),
        failure_threshold: number("failureThreshold", 4).max(1),
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
