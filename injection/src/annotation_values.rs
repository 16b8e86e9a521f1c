//! The values of Istio's annotations that both sidecars read.

use serde_json::{Map, Value};

use crate::{pod, refusal::Problem};

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

/// The annotations of `pod` that `check` refuses.
pub(crate) fn problems(
    pod: &Value,
    check: impl Fn(&str, &str) -> Result<(), String>,
) -> Vec<Problem> {
    let annotations = pod::strings(&pod["metadata"]["annotations"]);
    let problems = annotations.into_iter().filter_map(|(name, value)| {
        let problem = check(name, value).err()?;
        Some(Problem::Annotation {
            name: name.to_owned(),
            value: value.to_owned(),
            problem,
        })
    });
    problems.collect()
}

/// Checks the value of an annotation. Unknown names are `Ok`.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    let kind = ANNOTATIONS
        .iter()
        .find(|(annotation, _)| *annotation == name);
    kind.map_or(Ok(()), |(_, kind)| kind.check(value))
}

/// What `strconv.ParseBool` accepts.
pub(crate) fn bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn without_control_characters(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    Ok(())
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let (valid, allowed) = match self {
            Self::Bool => (bool(value).is_some(), "true or false is needed"),
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
