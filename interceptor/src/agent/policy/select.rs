//! Which pods are captured: those that istio-cni would pick, and those whose istio-init is ours.
//!
//! The steps and their order are istio-cni's (`cni/pkg/plugin/plugin.go`, `doAddRun`), with what it
//! leaves to others (host network, runtimes) before them.

use std::{collections::BTreeSet, fmt};

use super::{
    annotations::{self, CapturePlan},
    pod::{Container, Pod},
};
use crate::settings::parse_bool;

/// The options that select pods.
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

/// The decision about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is captured.
    Capture(Box<CapturePlan>),
    /// It is not in the mesh, or not ours to capture.
    Skip(Skip),
    /// It should be captured and cannot be: it must not run.
    Refuse(Refusal),
}

/// Why a pod that should be captured cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its runtime is not one of those that share the node's kernel.
    Runtime(String),
    /// Whether its runtime shares the node's kernel is unknown, at least for now.
    UnknownRuntime(String),
    /// It asks for what there is not.
    Request(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Runtime(why) | Self::UnknownRuntime(why) | Self::Request(why)) = self;
        formatter.write_str(why)
    }
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
    /// No sidecar was injected.
    NotInjected,
    /// The interception mode is NONE.
    ModeNone,
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::HostNetwork => "it uses the host network",
            Self::Namespace => "its namespace is excluded",
            Self::IstioInit => "its istio-init container redirects it with iptables",
            Self::Proxyless => "its istio-proxy runs no Envoy (DISABLE_ENVOY)",
            Self::NoProxy => "it has no istio-proxy container",
            Self::NoSidecar(kind) => {
                return write!(formatter, "its istio-proxy is a {kind}, not a sidecar");
            }
            Self::InjectionOff => "sidecar.istio.io/inject is false",
            Self::NotInjected => {
                "it has no annotation sidecar.istio.io/status: no sidecar was \
                 injected"
            }
            Self::ModeNone => "its interception mode is NONE",
        })
    }
}

/// Decides about `pod`, which runs by `runtime`.
#[must_use]
pub fn decide(pod: &Pod, runtime: &Runtime, selection: &Selection) -> Decision {
    let plan = match pick(pod, selection) {
        Ok(Picked::ByInit(init)) => annotations::of_init_container(init),
        Ok(Picked::ByInjection(proxy)) => annotations::of_annotations(pod, proxy),
        Err(skip) => return Decision::Skip(skip),
    };
    if let Some(problem) = runtime_problem(runtime, &selection.runtime_handlers) {
        return Decision::Refuse(problem);
    }
    match plan {
        Ok(plan) => Decision::Capture(Box::new(plan)),
        Err(problem) => Decision::Refuse(Refusal::Request(problem)),
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
    if proxy.is_some_and(|proxy| parse_bool(proxy.variable("DISABLE_ENVOY")) == Ok(true)) {
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
    if annotations::mode(pod) == "NONE" {
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
    parse_bool(value).ok()
}

/// Whether `image` is of one of these repositories, whatever its tag or digest. A repository without
/// a registry is meant in whichever registry it is.
fn is_ours(image: &str, repositories: &[String]) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    // A port is followed by a path, a tag is not.
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    repositories.iter().any(|ours| {
        let registry = repository.strip_suffix(ours.as_str());
        registry.is_some_and(|registry| registry.is_empty() || registry.ends_with('/'))
    })
}

/// A runtime that brings its own kernel would be attached, and nothing be captured: programs of the
/// node's kernel do not see what goes on in gVisor or a virtual machine. So only those that are
/// known to share the kernel are let in.
fn runtime_problem(runtime: &Runtime, handlers: &BTreeSet<String>) -> Option<Refusal> {
    let allowed = || {
        let names: Vec<_> = handlers.iter().map(String::as_str).collect();
        names.join(", ")
    };
    match runtime {
        Runtime::Default => None,
        Runtime::Handler(handler) if handlers.contains(handler) => None,
        Runtime::Handler(handler) => Some(Refusal::Runtime(format!(
            "its runtime handler {handler:?} is not in the list of handlers that share the node's \
             kernel ({}): in a sandbox with its own kernel (gVisor, Kata) nothing would be captured. Use istio-init there, or add the handler to the agent's value runtimeClasses.allow (--runtime-handlers)",
            allowed()
        ))),
        Runtime::Unknown(class) => Some(Refusal::UnknownRuntime(format!(
            "its RuntimeClass {class:?} is unknown, so the agent cannot determine whether it \
             shares the node's kernel. Create the RuntimeClass, or allow the agent to read runtimeclasses"
        ))),
    }
}

#[cfg(test)]
pub(in crate::agent) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::fixtures::{injected, pod, with_istio_init};

    pub(in crate::agent) fn selection() -> Selection {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Selection {
            excluded_namespaces: set(&["kube-system"]),
            runtime_handlers: set(&["runc", "crun"]),
            images: vec!["example.com:5000/interceptor".to_owned()],
        }
    }

    fn decided(manifest: Value) -> Decision {
        decide(&pod(manifest), &Runtime::Default, &selection())
    }

    fn skipped(change: impl FnOnce(&mut Value)) -> Skip {
        let mut manifest = injected();
        change(&mut manifest);
        match decided(manifest) {
            Decision::Skip(skip) => skip,
            other => panic!("{other:?}"),
        }
    }

    fn is_captured(manifest: Value) -> bool {
        matches!(decided(manifest), Decision::Capture(_))
    }

    #[test]
    fn an_injected_pod_is_captured() {
        assert!(is_captured(injected()));
    }

    #[test]
    fn a_native_sidecar_is_a_proxy_too() {
        let mut manifest = injected();
        let proxy = manifest["spec"]["containers"][1].take();
        manifest["spec"]["containers"] = json!([manifest["spec"]["containers"][0]]);
        let mut sidecar = proxy;
        sidecar["restartPolicy"] = json!("Always");
        manifest["spec"]["initContainers"]
            .as_array_mut()
            .unwrap()
            .push(sidecar);
        assert!(is_captured(manifest));
    }

    #[test]
    fn what_istio_cni_leaves_alone_is_left_alone() {
        let proxy = |pod: &mut Value, member: &str, value: Value| {
            pod["spec"]["containers"][1][member] = value;
        };
        let annotate = |pod: &mut Value, name: &str, value: &str| {
            pod["metadata"]["annotations"][name] = json!(value);
        };
        assert_eq!(
            skipped(|pod| pod["spec"]["hostNetwork"] = json!(true)),
            Skip::HostNetwork
        );
        assert_eq!(
            skipped(|pod| pod["metadata"]["namespace"] = json!("kube-system")),
            Skip::Namespace
        );
        assert_eq!(
            skipped(|pod| {
                let disabled = json!([{"name": "DISABLE_ENVOY", "value": "true"}]);
                proxy(pod, "env", disabled);
            }),
            Skip::Proxyless
        );
        assert_eq!(
            skipped(|pod| proxy(pod, "name", json!("envoy"))),
            Skip::NoProxy
        );
        assert_eq!(
            skipped(|pod| proxy(pod, "args", json!(["proxy", "router"]))),
            Skip::NoSidecar("router".to_owned())
        );
        assert_eq!(
            skipped(|pod| annotate(pod, "sidecar.istio.io/inject", "false")),
            Skip::InjectionOff
        );
        assert_eq!(
            skipped(|pod| {
                let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
                annotations.remove("sidecar.istio.io/status");
            }),
            Skip::NotInjected
        );
        assert_eq!(
            skipped(|pod| annotate(pod, "sidecar.istio.io/interceptionMode", "NONE")),
            Skip::ModeNone
        );
    }

    #[test]
    fn the_label_wins_over_the_annotation() {
        let mut manifest = injected();
        manifest["metadata"]["annotations"]["sidecar.istio.io/inject"] = json!("false");
        manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
        assert!(is_captured(manifest.clone()));
        manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("perhaps");
        assert!(is_captured(manifest));
    }

    #[test]
    fn somebody_elses_istio_init_does_the_work_and_ours_asks_for_it() {
        for image in [
            "docker.io/istio/proxyv2:1.30.0",
            "example.com:5000/interceptor-else:1",
            "example.com:5000/no-interceptor:1",
        ] {
            let decision = decided(with_istio_init(image));
            assert_eq!(decision, Decision::Skip(Skip::IstioInit), "{image}");
        }
        for image in [
            "example.com:5000/interceptor",
            "example.com:5000/interceptor:1.2",
            "example.com:5000/interceptor:1.2@sha256:00",
            "example.com:5000/interceptor@sha256:00",
            "mirror.example.com/example.com:5000/interceptor:1",
        ] {
            assert!(is_captured(with_istio_init(image)), "{image}");
        }
    }

    #[test]
    fn a_runtime_that_may_bring_its_own_kernel_is_refused() {
        let captured = |runtime: Runtime| decide(&pod(injected()), &runtime, &selection());
        let handler = |name: &str| captured(Runtime::Handler(name.to_owned()));
        assert!(matches!(handler("crun"), Decision::Capture(_)));
        for decision in [handler("runsc"), handler("kata-qemu")] {
            let is_refused = matches!(decision, Decision::Refuse(Refusal::Runtime(_)));
            assert!(is_refused, "{decision:?}");
        }
        let unknown = captured(Runtime::Unknown("gone".to_owned()));
        let is_refused = matches!(unknown, Decision::Refuse(Refusal::UnknownRuntime(_)));
        assert!(is_refused, "{unknown:?}");
        // Only what would have been captured is refused.
        let mut gateway = injected();
        gateway["spec"]["containers"][1]["args"] = json!(["proxy", "router"]);
        let gvisor = Runtime::Handler("runsc".to_owned());
        let decision = decide(&pod(gateway), &gvisor, &selection());
        assert!(matches!(decision, Decision::Skip(_)));
    }

    #[test]
    fn the_steps_come_in_the_order_of_istio_cni() {
        // Each pod has its own reason and those of all before it in this list.
        let mut manifest = injected();
        manifest["metadata"]["annotations"] = json!({});
        assert_eq!(decided(manifest.clone()), Decision::Skip(Skip::NotInjected));
        manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
        assert_eq!(
            decided(manifest.clone()),
            Decision::Skip(Skip::InjectionOff)
        );
        manifest["spec"]["containers"][1]["args"] = json!(["proxy", "router"]);
        let router = Skip::NoSidecar("router".to_owned());
        assert_eq!(decided(manifest.clone()), Decision::Skip(router));
        let disabled = json!([{"name": "DISABLE_ENVOY", "value": "1"}]);
        manifest["spec"]["containers"][1]["env"] = disabled;
        assert_eq!(decided(manifest.clone()), Decision::Skip(Skip::Proxyless));
        let theirs = json!([{"name": "istio-init", "image": "istio/proxyv2:1"}]);
        manifest["spec"]["initContainers"] = theirs;
        assert_eq!(decided(manifest.clone()), Decision::Skip(Skip::IstioInit));
        manifest["metadata"]["namespace"] = json!("kube-system");
        assert_eq!(decided(manifest), Decision::Skip(Skip::Namespace));
    }

    #[test]
    fn what_is_neither_yes_nor_no_keeps_no_pod_out() {
        let elsewhere = json!({"configMapKeyRef": {"name": "x", "key": "y"}});
        for variable in [
            json!({"name": "DISABLE_ENVOY", "value": "perhaps"}),
            json!({"name": "DISABLE_ENVOY", "value": "0"}),
            json!({"name": "DISABLE_ENVOY", "valueFrom": elsewhere}),
        ] {
            let mut manifest = injected();
            manifest["spec"]["containers"][1]["env"] = json!([variable]);
            assert!(is_captured(manifest), "{variable}");
        }
        for arguments in [
            json!([]),
            json!(["proxy"]),
            json!(["proxy", ""]),
            json!(["x", "router"]),
        ] {
            let mut manifest = injected();
            manifest["spec"]["containers"][1]["args"] = arguments.clone();
            assert!(is_captured(manifest), "{arguments}");
        }
        let mut manifest = injected();
        manifest["metadata"]["annotations"]["sidecar.istio.io/status"] = json!("");
        assert!(is_captured(manifest));
    }

    #[test]
    fn the_mode_none_counts_wherever_it_is_said() {
        let annotations = json!({
            "sidecar.istio.io/status": "{}",
            "proxy.istio.io/config": "interceptionMode: NONE"
        });
        let none = skipped(|pod| pod["metadata"]["annotations"] = annotations);
        assert_eq!(none, Skip::ModeNone);
    }
}
