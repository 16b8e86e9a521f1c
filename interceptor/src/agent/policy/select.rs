//! Selects the pods to capture: those that istio-cni would select, and those with our istio-init.
//!
//! The checks and their order are those of istio-cni (`cni/pkg/plugin/plugin.go`, `doAddRun`), after
//! checks that other programs do for istio-cni (host network, runtimes).

use std::{collections::BTreeSet, fmt};

use super::{
    annotations::{self, CapturePlan},
    pod::{Container, Pod},
};
use crate::settings::{Strict, parse_bool};

/// The options that select pods.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Namespaces whose pods are skipped.
    pub excluded_namespaces: BTreeSet<String>,
    /// The handlers of runtimes that share the node's kernel.
    pub runtime_handlers: BTreeSet<String>,
    /// Repositories of our image: a pod whose istio-init uses one is captured by this agent.
    pub images: Vec<String>,
    /// The strict mode of pods that set none.
    pub strict: Strict,
}

/// The runtime that runs a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The node's default.
    Default,
    /// The handler of the pod's `RuntimeClass`, as configured in the container runtime.
    Handler(String),
    /// The pod's `RuntimeClass` does not exist, or cannot be read.
    Unknown(String),
}

/// The decision about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pod is captured.
    Capture(Box<CapturePlan>),
    /// The pod is not in the mesh, or another program captures it.
    Skip(Skip),
    /// The pod should be captured and cannot be: it must not run.
    Refuse(Refusal),
}

/// Why a pod that should be captured cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its runtime is not in the list of those that share the node's kernel.
    Runtime(String),
    /// Whether its runtime shares the node's kernel is unknown.
    UnknownRuntime(String),
    /// Its settings are invalid.
    Settings(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Runtime(why) | Self::UnknownRuntime(why) | Self::Settings(why)) = self;
        formatter.write_str(why)
    }
}

/// Why a pod is not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It uses the node's network namespace.
    HostNetwork,
    /// Its namespace is excluded.
    Namespace,
    /// It has an istio-init with an image that is not ours.
    IstioInit,
    /// Its istio-proxy runs no Envoy (proxyless gRPC).
    Proxyless,
    /// It has no istio-proxy.
    NoProxy,
    /// Its istio-proxy is not a sidecar, but a gateway or a waypoint.
    NotSidecar(String),
    /// `sidecar.istio.io/inject` is false.
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
            Self::NotSidecar(kind) => {
                return write!(formatter, "its istio-proxy is a {kind}, not a sidecar");
            }
            Self::InjectionOff => "sidecar.istio.io/inject is false",
            Self::NotInjected => {
                "it has no annotation sidecar.istio.io/status: no sidecar was injected"
            }
            Self::ModeNone => "its interception mode is NONE",
        })
    }
}

/// Decides whether and how to capture `pod`.
#[must_use]
pub fn decide(pod: &Pod, runtime: &Runtime, selection: &Selection) -> Decision {
    let plan = match select(pod, selection) {
        Ok(Selected::ByInit(init)) => annotations::of_init_container(init),
        Ok(Selected::ByInjection(proxy)) => annotations::of_annotations(pod, proxy),
        Err(skip) => return Decision::Skip(skip),
    };
    if let Some(problem) = runtime_problem(runtime, &selection.runtime_handlers) {
        return Decision::Refuse(problem);
    }
    let plan = plan.and_then(|plan| annotations::with_strict_mode(plan, pod, selection.strict));
    match plan {
        Ok(plan) => Decision::Capture(Box::new(plan)),
        Err(problem) => Decision::Refuse(Refusal::Settings(problem)),
    }
}

/// Why a pod was selected.
enum Selected<'a> {
    /// It has our istio-init container.
    ByInit(&'a Container),
    /// It was injected with this istio-proxy container.
    ByInjection(&'a Container),
}

fn select<'a>(pod: &'a Pod, selection: &Selection) -> Result<Selected<'a>, Skip> {
    if pod.host_network {
        return Err(Skip::HostNetwork);
    }
    if selection.excluded_namespaces.contains(&pod.name.namespace) {
        return Err(Skip::Namespace);
    }
    if let Some(init) = pod.container("istio-init") {
        return if is_ours(&init.image, &selection.images) {
            Ok(Selected::ByInit(init))
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
        return Err(Skip::NotSidecar(kind.clone()));
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
    Ok(Selected::ByInjection(proxy))
}

/// The label wins over the annotation. A value that is not a boolean has no effect.
fn injection(pod: &Pod) -> Option<bool> {
    const INJECT: &str = "sidecar.istio.io/inject";
    let value = pod
        .labels
        .get(INJECT)
        .or_else(|| pod.annotations.get(INJECT))?;
    parse_bool(value).ok()
}

/// Whether `image` is in one of these repositories, with any tag or digest. A repository without a
/// registry matches in all registries.
fn is_ours(image: &str, repositories: &[String]) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    // A path follows a port, but not a tag.
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    repositories.iter().any(|ours| {
        let registry = repository.strip_suffix(ours.as_str());
        registry.is_some_and(|registry| registry.is_empty() || registry.ends_with('/'))
    })
}

/// Only runtimes that are known to share the node's kernel are accepted. A pod in gVisor or a virtual
/// machine could be attached, but programs in the node's kernel do not see its sockets.
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
            strict: Strict::Off,
        }
    }

    fn decided(manifest: Value) -> Decision {
        decide(&pod(manifest), &Runtime::Default, &selection())
    }

    fn strict_mode(annotation: Option<&str>, default: Strict) -> Result<Strict, String> {
        let mut manifest = injected();
        if let Some(value) = annotation {
            manifest["metadata"]["annotations"]["interceptor.dev/strict"] = json!(value);
        }
        let selection = Selection {
            strict: default,
            ..selection()
        };
        match decide(&pod(manifest), &Runtime::Default, &selection) {
            Decision::Capture(plan) => Ok(plan.settings.strict),
            Decision::Refuse(why) => Err(why.to_string()),
            Decision::Skip(skip) => panic!("{skip}"),
        }
    }

    #[test]
    fn the_annotation_wins_over_the_agents_strict_mode() {
        assert_eq!(strict_mode(None, Strict::Off), Ok(Strict::Off));
        assert_eq!(strict_mode(None, Strict::Tcp), Ok(Strict::Tcp));
        assert_eq!(strict_mode(Some("all"), Strict::Tcp), Ok(Strict::All));
        assert_eq!(strict_mode(Some("off"), Strict::All), Ok(Strict::Off));
        let problem = strict_mode(Some("yes"), Strict::Off).unwrap_err();
        let expected = "annotation interceptor.dev/strict \"yes\": is not a strict mode: ";
        assert!(problem.starts_with(expected), "{problem}");
    }

    #[test]
    fn a_pod_with_virtual_machines_has_no_strict_mode() {
        let decided = |strict: Option<&str>| {
            let mut manifest = injected();
            let annotations = &mut manifest["metadata"]["annotations"];
            annotations["istio.io/reroute-virtual-interfaces"] = json!("tap0");
            if let Some(strict) = strict {
                annotations["interceptor.dev/strict"] = json!(strict);
            }
            let selection = Selection {
                strict: Strict::Tcp,
                ..selection()
            };
            decide(&pod(manifest), &Runtime::Default, &selection)
        };
        let Decision::Capture(plan) = decided(None) else {
            panic!("it is captured");
        };
        assert_eq!(plan.settings.strict, Strict::Off);
        assert!(plan.notes[0].contains("strict mode (tcp) has no effect"));
        assert!(matches!(decided(Some("tcp")), Decision::Refuse(_)));
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
    fn a_native_sidecar_is_a_proxy() {
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
    fn pods_that_istio_cni_skips_are_skipped() {
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
            Skip::NotSidecar("router".to_owned())
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
    fn only_an_istio_init_with_our_image_is_captured() {
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
    fn a_runtime_that_may_have_its_own_kernel_is_refused() {
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
        // Only a pod that would be captured is refused.
        let mut gateway = injected();
        gateway["spec"]["containers"][1]["args"] = json!(["proxy", "router"]);
        let gvisor = Runtime::Handler("runsc".to_owned());
        let decision = decide(&pod(gateway), &gvisor, &selection());
        assert!(matches!(decision, Decision::Skip(_)));
    }

    #[test]
    fn the_checks_have_the_order_of_istio_cni() {
        // Each pod has one more reason than the previous one.
        let mut manifest = injected();
        manifest["metadata"]["annotations"] = json!({});
        assert_eq!(decided(manifest.clone()), Decision::Skip(Skip::NotInjected));
        manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
        assert_eq!(
            decided(manifest.clone()),
            Decision::Skip(Skip::InjectionOff)
        );
        manifest["spec"]["containers"][1]["args"] = json!(["proxy", "router"]);
        let router = Skip::NotSidecar("router".to_owned());
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
    fn values_that_are_not_booleans_skip_no_pod() {
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
    fn the_mode_none_in_the_proxy_config_skips_the_pod() {
        let annotations = json!({
            "sidecar.istio.io/status": "{}",
            "proxy.istio.io/config": "interceptionMode: NONE"
        });
        let none = skipped(|pod| pod["metadata"]["annotations"] = annotations);
        assert_eq!(none, Skip::ModeNone);
    }
}
