//! How a pod is captured: its settings, as istio-cni takes them from annotations and containers
//! (`cni/pkg/plugin/sidecar_redirect.go`) or as its own istio-init's arguments say.

use std::borrow::Cow;

use clap::{Args as _, Command, FromArgMatches as _};

use super::{
    pod::{Container, Pod},
    selection::parse_bool,
};
use crate::settings::{IstioFlags, Settings, control::ControlFlags};

/// How a pod is to be captured, and from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What is captured.
    pub settings: Settings,
    /// Which of what the pod asks for has no effect, and why.
    pub notes: Vec<String>,
    /// From when on.
    pub from: From,
}

/// From when on a pod is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Before its first container starts.
    Start,
    /// When its istio-init container runs: init containers before it have the network to
    /// themselves, as always.
    IstioInit,
}

/// An annotation, the flag that it stands for, and what istio-cni takes in its absence.
struct Annotation {
    name: &'static str,
    flag: &'static str,
    default: &'static str,
}

const fn annotation(name: &'static str, flag: &'static str, default: &'static str) -> Annotation {
    Annotation {
        name,
        flag,
        default,
    }
}

/// The annotations in which a pod says what is captured.
const ANNOTATIONS: [Annotation; 9] = [
    annotation(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        "istio-service-cidr",
        "*",
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "istio-service-exclude-cidr",
        "",
    ),
    annotation(
        "traffic.sidecar.istio.io/includeInboundPorts",
        "istio-inbound-ports",
        "*",
    ),
    annotation(EXCLUDE_INBOUND_PORTS, "istio-local-exclude-ports", "15020"),
    annotation(
        "traffic.sidecar.istio.io/includeOutboundPorts",
        "istio-outbound-ports",
        "",
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "istio-local-outbound-ports-exclude",
        "15020",
    ),
    annotation(
        "traffic.sidecar.istio.io/excludeInterfaces",
        "istio-exclude-interfaces",
        "",
    ),
    // The name before the next one's.
    annotation(
        "traffic.sidecar.istio.io/kubevirtInterfaces",
        "kube-virt-interfaces",
        "",
    ),
    annotation(
        "istio.io/reroute-virtual-interfaces",
        "kube-virt-interfaces",
        "",
    ),
];

const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";

/// The proxy's own ports, where nothing inbound is captured whatever the annotation says.
const PROXY_PORTS: [&str; 3] = ["15020", "15021", "15090"];

const MODE: &str = "sidecar.istio.io/interceptionMode";

/// The proxy's owner if its container does not say, or says root.
const PROXY_ID: i64 = 1337;

/// How the pod says that inbound connections are taken to the proxy.
#[must_use]
pub fn mode(pod: &Pod) -> &str {
    pod.annotations.get(MODE).map_or("REDIRECT", String::as_str)
}

/// How an injected pod is captured, whose proxy is `proxy`.
pub fn of_annotations(pod: &Pod, proxy: &Container) -> Result<Intent, String> {
    let mode = mode(pod);
    if !["REDIRECT", "TPROXY"].contains(&mode) {
        return Err(format!(
            "annotation {MODE} {mode:?}: give REDIRECT, TPROXY or NONE"
        ));
    }
    let mut arguments = vec![flag("istio-inbound-interception-mode", mode)];
    for annotation in &ANNOTATIONS {
        let value = pod.annotations.get(annotation.name);
        if value.is_some() || !annotation.default.is_empty() {
            let value = value.map_or(annotation.default, String::as_str);
            arguments.push(flag(annotation.flag, &complete(annotation, value)));
        }
    }
    let owner = |id: Option<i64>| id.filter(|id| *id != 0).unwrap_or(PROXY_ID).to_string();
    arguments.push(flag("proxy-uid", &owner(proxy.run_as_user)));
    arguments.push(flag("proxy-gid", &owner(proxy.run_as_group)));
    let is_set = |variable| parse_bool(proxy.variable(variable)) == Some(true);
    if is_set("ISTIO_META_DNS_CAPTURE") {
        arguments.extend(["--redirect-dns", "--capture-all-dns"].map(str::to_owned));
    }
    if is_set("ISTIO_DUAL_STACK") {
        arguments.push("--dual-stack".to_owned());
    }
    if is_set("INVALID_DROP") {
        arguments.push("--drop-invalid".to_owned());
    }
    parse(&arguments, &|_| None, From::Start, named_by_annotation)
}

/// Both of what the annotation says and of what istio-cni adds to it, each port once.
fn complete<'a>(annotation: &Annotation, value: &'a str) -> Cow<'a, str> {
    if annotation.name != EXCLUDE_INBOUND_PORTS {
        return value.into();
    }
    let mut ports: Vec<&str> = Vec::new();
    for port in value.split(',').chain(PROXY_PORTS).map(str::trim) {
        if !port.is_empty() && !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.join(",").into()
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

/// The annotation that stands for a flag, to be named in the flag's place.
fn named_by_annotation(setting: &str) -> String {
    let named = ANNOTATIONS
        .iter()
        .filter(|annotation| setting.strip_prefix("--") == Some(annotation.flag))
        .map(|annotation| annotation.name);
    match named.collect::<Vec<_>>()[..] {
        [] => setting.to_owned(),
        ref names => format!("annotation {}", names.join(" or ")),
    }
}

/// How a pod is captured whose istio-init container is ours: by its arguments and variables.
pub fn of_init_container(init: &Container) -> Result<Intent, String> {
    let words = init.command.iter().chain(&init.arguments);
    let arguments: Vec<_> = words
        .skip_while(|word| !word.starts_with('-'))
        .cloned()
        .collect();
    let variables = |name: &str| init.variables.get(name).cloned();
    parse(&arguments, &variables, From::IstioInit, |setting| {
        format!("istio-init's {setting}")
    })
}

fn parse(
    arguments: &[String],
    variables: &dyn Fn(&str) -> Option<String>,
    from: From,
    name: impl Fn(&str) -> String,
) -> Result<Intent, String> {
    let command = Command::new("istio-iptables").no_binary_name(true);
    let command = ControlFlags::augment_args(IstioFlags::augment_args(command))
        .args_override_self(true)
        .disable_help_flag(true);
    let flags = command
        .try_get_matches_from(arguments)
        .and_then(|matches| IstioFlags::from_arg_matches(&matches))
        .map_err(|error| format!("its istio-init's arguments are not valid: {error}"))?;
    let parsed = Settings::from_flags_and(&flags, variables, None).map_err(|error| {
        format!(
            "{} {:?}: {}",
            name(&error.setting),
            error.value,
            error.problem
        )
    })?;
    Ok(Intent {
        settings: parsed.settings,
        notes: parsed.notes,
        from,
    })
}
