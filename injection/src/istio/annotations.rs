//! The values of annotations, all of which are checked before a template sees them.
//!
//! Istio checks only some, and older templates write values into YAML without quotes: a line break
//! in one could add fields to the pod.

use serde_json::Value;

use super::{config::Config, mesh::PROXY_CONFIG, proxy_config::Change};
use crate::{
    annotation_values::{self, without_control_characters},
    overrides::OVERRIDES,
    refusal::Refusal,
    status::STATUS,
};

/// Annotations whose values have a format with line breaks.
const MULTI_LINE: &[&str] = &[
    PROXY_CONFIG,
    OVERRIDES,
    STATUS,
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
];

/// Refuses `pod` with all its invalid annotations.
pub(super) fn check(pod: &Value, config: &Config) -> Result<(), Refusal> {
    let problems = annotation_values::problems(pod, |name, value| check_one(name, value, config));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal(problems))
    }
}

fn check_one(name: &str, value: &str, config: &Config) -> Result<(), String> {
    if is_read_by_templates(name) && !MULTI_LINE.contains(&name) {
        without_control_characters(value)?;
    }
    if name == PROXY_CONFIG {
        return check_proxy_config(value);
    }
    (config.options.check)(name, value)?;
    annotation_values::check(name, value)
}

fn is_read_by_templates(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    domain == "istio.io" || domain.ends_with(".istio.io") || domain == "resource.opentelemetry.io"
}

fn check_proxy_config(value: &str) -> Result<(), String> {
    Change::parse(value)?.check_quoted()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::istio::{Options, Sources};

    fn config() -> Config {
        let sources = Sources {
            inject: "{}",
            values: "{}",
            mesh: "",
        };
        let options = Options {
            check: |name, _| {
                let of_agent = name.starts_with("traffic.sidecar.istio.io/");
                if of_agent {
                    Err("the agent's".to_owned())
                } else {
                    Ok(())
                }
            },
            ..Options::default()
        };
        Config::load(&sources, options).unwrap()
    }

    #[test]
    fn values_are_accepted() {
        let config = config();
        for (name, value) in [
            ("prometheus.istio.io/merge-metrics", "T"),
            (
                "readiness.status.sidecar.istio.io/periodSeconds",
                "4294967295",
            ),
            ("sidecar.istio.io/interceptionMode", "NONE"),
            ("sidecar.istio.io/proxyCPU", "1.5"),
            ("sidecar.istio.io/proxyCPU", "1e3"),
            ("sidecar.istio.io/proxyCPU", "+.5Gi"),
            (
                "sidecar.istio.io/userVolume",
                "{\"a\":\n {\"emptyDir\": {}}}",
            ),
            ("status.sidecar.istio.io/port", " 15020 "),
            ("proxy.istio.io/config", "proxyMetadata:\n  A: b\n"),
            ("example.com/x", "a\nb"),
        ] {
            assert_eq!(check_one(name, value, &config), Ok(()), "{name} {value}");
        }
    }

    #[test]
    fn wrong_values_are_refused_all_at_once() {
        let wrong = json!({
            "prometheus.istio.io/merge-metrics": "yes",
            "readiness.status.sidecar.istio.io/periodSeconds": "4294967296",
            "readiness.status.sidecar.istio.io/failureThreshold": "+1",
            "sidecar.istio.io/interceptionMode": "redirect",
            "sidecar.istio.io/proxyCPU": "1Kib",
            "sidecar.istio.io/proxyMemory": ".",
            "sidecar.istio.io/proxyImage": "a\nb",
            "sidecar.istio.io/nativeSidecar": "1",
            "sidecar.istio.io/userVolume": "{\"a\": 1}",
            "sidecar.istio.io/userVolumeMount": "{\"a\\nb\": {}}",
            "apm.datadoghq.com/env": "[]",
            "status.sidecar.istio.io/port": "65536",
            "proxy.istio.io/config": "proxyMetadata: {A: \"a\\nb\"}",
            "traffic.sidecar.istio.io/includeOutboundPorts": "x",
        });
        let pod = json!({"metadata": {"annotations": wrong}});
        let refusal = check(&pod, &config()).unwrap_err();
        assert_eq!(
            refusal.0.len(),
            wrong.as_object().unwrap().len(),
            "{refusal}"
        );
    }
}
