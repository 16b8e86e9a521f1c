//! The values of annotations, all of which are checked before a template sees them.
//!
//! Istio checks only some, and older templates write values into YAML without quotes: a line break
//! in one could add fields to the pod.

use serde_json::{Map, Value};

use super::{config::Config, mesh::PROXY_CONFIG, text, yaml};
use crate::refusal::{Problem, Refusal};

/// What an annotation accepts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    /// `true` or `false`, and no other word for it.
    TrueOrFalse,
    InterceptionMode,
    Number,
    Port,
    Quantity,
    /// A JSON object whose values are used as YAML.
    Objects,
    /// A JSON object of strings.
    Strings,
}

const ANNOTATIONS: &[(&str, Kind)] = &[
    ("apm.datadoghq.com/env", Kind::Strings),
    ("prometheus.istio.io/merge-metrics", Kind::Bool),
    (
        "readiness.status.sidecar.istio.io/failureThreshold",
        Kind::Number,
    ),
    (
        "readiness.status.sidecar.istio.io/initialDelaySeconds",
        Kind::Number,
    ),
    (
        "readiness.status.sidecar.istio.io/periodSeconds",
        Kind::Number,
    ),
    ("sidecar.istio.io/capNetBindService", Kind::TrueOrFalse),
    ("sidecar.istio.io/interceptionMode", Kind::InterceptionMode),
    ("sidecar.istio.io/nativeSidecar", Kind::TrueOrFalse),
    ("sidecar.istio.io/proxyCPU", Kind::Quantity),
    ("sidecar.istio.io/proxyCPULimit", Kind::Quantity),
    ("sidecar.istio.io/proxyMemory", Kind::Quantity),
    ("sidecar.istio.io/proxyMemoryLimit", Kind::Quantity),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Kind::Bool),
    ("sidecar.istio.io/userVolume", Kind::Objects),
    ("sidecar.istio.io/userVolumeMount", Kind::Objects),
    ("status.sidecar.istio.io/port", Kind::Port),
];

/// Annotations whose values have a format with line breaks.
const MULTI_LINE: &[&str] = &[
    PROXY_CONFIG,
    super::overrides::OVERRIDES,
    super::status::STATUS,
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
];

/// Refuses `pod` with all its invalid annotations.
pub(super) fn check(pod: &Value, config: &Config) -> Result<(), Refusal> {
    let annotations = pod["metadata"]["annotations"].as_object();
    let problems: Vec<_> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let value = value.as_str()?;
            let problem = check_one(name, value, config).err()?;
            Some(Problem::Annotation {
                name: name.clone(),
                value: value.to_owned(),
                problem,
            })
        })
        .collect();
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
        return check_proxy_config(value, config);
    }
    (config.options.check)(name, value)?;
    let kind = ANNOTATIONS
        .iter()
        .find(|(annotation, _)| *annotation == name);
    kind.map_or(Ok(()), |(_, kind)| kind.check(value))
}

fn is_read_by_templates(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    domain == "istio.io" || domain.ends_with(".istio.io") || domain == "resource.opentelemetry.io"
}

fn without_control_characters(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    Ok(())
}

fn check_proxy_config(value: &str, config: &Config) -> Result<(), String> {
    config.mesh.proxy.with_yaml(value)?;
    let parsed = yaml::read(value)?;
    for metadata in ["proxyMetadata", "proxy_metadata"] {
        let entries = parsed[metadata].as_object().into_iter().flatten();
        for (name, value) in entries {
            let value = value.as_str().unwrap_or_default();
            without_control_characters(name)
                .and_then(|()| without_control_characters(value))
                .map_err(|problem| format!("proxyMetadata {name:?}: {problem}"))?;
        }
    }
    Ok(())
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let (valid, allowed) = match self {
            Self::Bool => (text::bool(value).is_some(), "true or false is needed"),
            Self::TrueOrFalse => (
                ["true", "false"].contains(&value),
                "true or false is needed",
            ),
            Self::InterceptionMode => (
                ["REDIRECT", "TPROXY", "NONE"].contains(&value),
                "REDIRECT, TPROXY or NONE is needed",
            ),
            Self::Number => (
                is_digits(value) && value.parse::<u32>().is_ok(),
                "a number from 0 to 4294967295 is needed",
            ),
            Self::Port => (
                is_digits(value.trim()) && value.trim().parse::<u16>().is_ok(),
                "a port from 0 to 65535 is needed",
            ),
            Self::Quantity => (
                is_quantity(value),
                "a quantity such as 100m, 0.5 or 128Mi is needed",
            ),
            Self::Objects => return check_object(value, Value::is_object, "objects"),
            Self::Strings => return check_object(value, Value::is_string, "strings"),
        };
        if valid {
            Ok(())
        } else {
            Err(allowed.to_owned())
        }
    }
}

fn check_object(value: &str, allowed: fn(&Value) -> bool, what: &str) -> Result<(), String> {
    let object: Map<String, Value> = serde_json::from_str(value)
        .map_err(|error| format!("a JSON object of {what} is needed: {error}"))?;
    for (key, value) in &object {
        if !allowed(value) {
            return Err(format!(
                "a JSON object of {what} is needed: {key:?} is {value}"
            ));
        }
        let text = value.as_str().unwrap_or_default();
        without_control_characters(key).and_then(|()| without_control_characters(text))?;
    }
    Ok(())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A quantity of Kubernetes: a decimal number with a suffix or an exponent.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_digit_or_dot = |character: char| character.is_ascii_digit() || character == '.';
    let end = unsigned.find(|character| !is_digit_or_dot(character));
    let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = (is_digits(whole) || whole.is_empty() && is_digits(fraction))
        && (fraction.is_empty() || is_digits(fraction));
    is_number && is_suffix(suffix)
}

fn is_suffix(suffix: &str) -> bool {
    const SUFFIXES: &[&str] = &[
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let exponent = suffix.strip_prefix(['e', 'E']);
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    SUFFIXES.contains(&suffix) || exponent.is_some_and(is_digits)
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
