//! Which pods are captured: those that istio-cni would pick, and those whose istio-init is ours.
//!
//! The steps and their order are istio-cni's (`cni/pkg/plugin/plugin.go`, `doAddRun`), with what it
//! leaves to others (host network, runtimes) before them.

use std::{collections::BTreeSet, fmt};

use super::{
    intent::{self, Intent},
    pod::{Container, Pod},
};

/// Who is not asked, and what else the agent was told about picking pods.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The namespaces whose pods are left alone.
    pub excluded_namespaces: BTreeSet<String>,
    /// The handlers of runtimes that share the node's kernel.
    pub runtime_handlers: BTreeSet<String>,
    /// The repositories of our own image: an istio-init of theirs asks for this agent.
    pub images: Vec<String>,
}

/// The runtime that a pod runs by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The node's default.
    Default,
    /// That of a `RuntimeClass`, by the name that the container runtime has for it.
    Handler(String),
    /// Its `RuntimeClass` is not known, or cannot be asked for.
    Unknown(String),
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is captured.
    Capture(Box<Intent>),
    /// It is none of ours.
    Skip(Skip),
    /// It should be captured and cannot be: it must not run.
    Refuse(String),
}

/// Why a pod is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is in the node's network namespace.
    HostNetwork,
    /// Its namespace is excluded.
    Namespace,
    /// It has an istio-init of its own, which is not ours.
    IstioInit,
    /// Its istio-proxy runs no Envoy (proxyless gRPC).
    Proxyless,
    /// It has no istio-proxy.
    NoProxy,
    /// Its istio-proxy is no sidecar: a gateway or a waypoint.
    NoSidecar(String),
    /// `sidecar.istio.io/inject` says no.
    InjectionOff,
    /// It was not injected.
    NotInjected,
    /// The interception mode is NONE.
    ModeNone,
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HostNetwork => "it is in the node's network namespace",
            Self::Namespace => "its namespace is excluded",
            Self::IstioInit => "its istio-init container redirects it with iptables",
            Self::Proxyless => "its istio-proxy runs no Envoy (DISABLE_ENVOY)",
            Self::NoProxy => "it has no istio-proxy container",
            Self::NoSidecar(kind) => {
                return write!(formatter, "its istio-proxy is a {kind}, no sidecar");
            }
            Self::InjectionOff => "sidecar.istio.io/inject is false",
            Self::NotInjected => "it has no annotation sidecar.istio.io/status: nobody injected it",
            Self::ModeNone => "its interception mode is NONE",
        })
    }
}

/// Decides about `pod`, which runs by `runtime`.
#[must_use]
pub fn decide(pod: &Pod, runtime: &Runtime, selection: &Selection) -> Decision {
    let intent = match pick(pod, selection) {
        Ok(Picked::ByInit(init)) => intent::of_init_container(init),
        Ok(Picked::ByInjection(proxy)) => intent::of_annotations(pod, proxy),
        Err(skip) => return Decision::Skip(skip),
    };
    if let Some(problem) = runtime_problem(runtime, &selection.runtime_handlers) {
        return Decision::Refuse(problem);
    }
    match intent {
        Ok(intent) => Decision::Capture(Box::new(intent)),
        Err(problem) => Decision::Refuse(problem),
    }
}

/// What a pod was picked by.
enum Picked<'a> {
    /// Its istio-init container, which waits for us.
    ByInit(&'a Container),
    /// Its having been injected with this istio-proxy.
    ByInjection(&'a Container),
}

fn pick<'a>(pod: &'a Pod, selection: &Selection) -> Result<Picked<'a>, Skip> {
    if pod.host_network {
        return Err(Skip::HostNetwork);
    }
    if selection.excluded_namespaces.contains(&pod.name.namespace) {
        return Err(Skip::Namespace);
    }
    if let Some(init) = pod.container("istio-init") {
        return if is_ours(&init.image, &selection.images) {
            Ok(Picked::ByInit(init))
        } else {
            Err(Skip::IstioInit)
        };
    }
    let proxy = pod.container("istio-proxy");
    if proxy.is_some_and(|proxy| parse_bool(proxy.variable("DISABLE_ENVOY")) == Some(true)) {
        return Err(Skip::Proxyless);
    }
    let proxy = proxy.ok_or(Skip::NoProxy)?;
    if let [command, kind, ..] = &proxy.arguments[..]
        && command == "proxy"
        && !["", "sidecar"].contains(&kind.as_str())
    {
        return Err(Skip::NoSidecar(kind.clone()));
    }
    if injection(pod) == Some(false) {
        return Err(Skip::InjectionOff);
    }
    if !pod.annotations.contains_key("sidecar.istio.io/status") {
        return Err(Skip::NotInjected);
    }
    if intent::mode(pod) == "NONE" {
        return Err(Skip::ModeNone);
    }
    Ok(Picked::ByInjection(proxy))
}

/// The label wins over the annotation; what is neither true nor false says nothing.
fn injection(pod: &Pod) -> Option<bool> {
    const INJECT: &str = "sidecar.istio.io/inject";
    let value = pod
        .labels
        .get(INJECT)
        .or_else(|| pod.annotations.get(INJECT))?;
    parse_bool(value)
}

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether `image` is of one of these repositories, whatever its tag or digest.
fn is_ours(image: &str, repositories: &[String]) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    // A port is followed by a path, a tag is not.
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    repositories.iter().any(|ours| ours == repository)
}

/// A runtime that brings its own kernel would be attached, and nothing be captured: programs of the
/// node's kernel do not see what goes on in gVisor or a virtual machine. So only those that are
/// known to share the kernel are let in.
fn runtime_problem(runtime: &Runtime, handlers: &BTreeSet<String>) -> Option<String> {
    let allowed = || {
        let names: Vec<_> = handlers.iter().map(String::as_str).collect();
        names.join(", ")
    };
    match runtime {
        Runtime::Default => None,
        Runtime::Handler(handler) if handlers.contains(handler) => None,
        Runtime::Handler(handler) => Some(format!(
            "its runtime handler {handler:?} is not one that is known to share the node's kernel \
             ({}): in a sandbox with a kernel of its own (gVisor, Kata) nothing would be captured. \
             Use istio-init there, or name the handler in the agent's --runtime-handlers",
            allowed()
        )),
        Runtime::Unknown(class) => Some(format!(
            "its runtime class {class:?} is not known: whether it shares the node's kernel cannot \
             be told. Create the RuntimeClass, or let the agent read runtimeclasses"
        )),
    }
}
