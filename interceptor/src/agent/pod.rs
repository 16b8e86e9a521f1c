//! What is kept of a Kubernetes pod: what selection and settings hang on, and no more, for a node
//! has hundreds of pods and each object is tens of kilobytes.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1 as k8s;
use serde::{Deserialize, Serialize};

pub use super::protocol::PodName;

/// The annotations, labels and variables that anything here looks at end so, or begin so.
const KEPT_KEYS: [&str; 2] = ["istio.io/", "interceptor."];

/// Kubernetes' name for one pod, never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Its UID.
    pub uid: PodUid,
    /// Its labels, those that may matter.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, those that may matter.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is in the node's network namespace.
    pub host_network: bool,
    /// The `RuntimeClass` that it names.
    pub runtime_class: Option<String>,
    /// Its init containers, sidecars of the new kind among them.
    pub init_containers: Vec<Container>,
    /// Its other containers.
    pub containers: Vec<Container>,
    /// Whether its containers have ended for good, or it is gone.
    pub is_over: bool,
    /// Whether any container has been started.
    pub has_started: bool,
    /// The init containers that have been started in the pod's present sandbox, by name.
    pub started_init_containers: Vec<String>,
    /// The runtime's names for the init containers, by their own.
    pub init_container_ids: BTreeMap<String, String>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its entry point, if the pod names one.
    pub command: Vec<String>,
    /// The arguments of the entry point.
    pub arguments: Vec<String>,
    /// Its variables. Those whose value is elsewhere (`valueFrom`) are empty, as to istio-cni.
    pub variables: BTreeMap<String, String>,
    /// `securityContext.runAsUser`
    pub run_as_user: Option<i64>,
    /// `securityContext.runAsGroup`
    pub run_as_group: Option<i64>,
}

impl Pod {
    /// What matters of `pod`. `None` if it has no name, namespace or UID, which the API never sends.
    #[must_use]
    pub fn of(pod: &k8s::Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let name = PodName {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
        };
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let statuses = |pick: fn(&k8s::PodStatus) -> Option<&Vec<k8s::ContainerStatus>>| {
            status.and_then(pick).map_or(&[][..], Vec::as_slice)
        };
        let init = statuses(|status| status.init_container_statuses.as_ref());
        let rest = statuses(|status| status.container_statuses.as_ref());
        Some(Self {
            name,
            uid: PodUid(metadata.uid.clone()?),
            labels: kept(metadata.labels.as_ref()),
            annotations: kept(metadata.annotations.as_ref()),
            host_network: spec.host_network.unwrap_or(false),
            runtime_class: spec.runtime_class_name.clone(),
            init_containers: containers(spec.init_containers.as_deref().unwrap_or(&[])),
            containers: containers(&spec.containers),
            is_over: matches!(phase, Some("Succeeded" | "Failed")),
            has_started: init.iter().chain(rest).any(has_started),
            started_init_containers: started_init_containers(init, rest),
            init_container_ids: container_ids(init),
        })
    }

    /// All containers, the init containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The container called `name`.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers()
            .find(|container| container.name == name)
    }
}

impl Container {
    /// The value of a variable; what is not set is empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }
}

fn kept(map: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let entries = map.into_iter().flatten();
    entries
        .filter(|(key, _)| KEPT_KEYS.iter().any(|kept| key.contains(kept)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn has_started(status: &k8s::ContainerStatus) -> bool {
    [status.state.as_ref(), status.last_state.as_ref()]
        .into_iter()
        .flatten()
        .any(|state| state.running.is_some() || state.terminated.is_some())
}

/// Init containers that have ended may have done so in the sandbox before, as after a reboot, and
/// run again. So they count where they run, or where the containers do that come after all of them.
fn started_init_containers(
    init: &[k8s::ContainerStatus],
    rest: &[k8s::ContainerStatus],
) -> Vec<String> {
    let is_initialized = rest
        .iter()
        .any(|status| is_running(status) || crashes(status));
    init.iter()
        .filter(|status| is_initialized || is_running(status))
        .map(|status| status.name.clone())
        .collect()
}

fn container_ids(statuses: &[k8s::ContainerStatus]) -> BTreeMap<String, String> {
    let known = statuses.iter().filter_map(|status| {
        let id = status.container_id.clone()?;
        Some((status.name.clone(), id))
    });
    known.filter(|(_, id)| !id.is_empty()).collect()
}

fn is_running(status: &k8s::ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.running.is_some())
}

/// Kubelet says so only while it starts a container again and again in one sandbox.
fn crashes(status: &k8s::ContainerStatus) -> bool {
    let waiting = status
        .state
        .as_ref()
        .and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

/// The names of the containers that anything here looks into.
const LOOKED_INTO: [&str; 2] = ["istio-init", "istio-proxy"];

fn containers(containers: &[k8s::Container]) -> Vec<Container> {
    containers.iter().map(container).collect()
}

/// Of the app's own containers only the name matters.
fn container(container: &k8s::Container) -> Container {
    if !LOOKED_INTO.contains(&container.name.as_str()) {
        return Container {
            name: container.name.clone(),
            ..Container::default()
        };
    }
    let variables = container.env.iter().flatten();
    let security = container.security_context.as_ref();
    Container {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        command: container.command.clone().unwrap_or_default(),
        arguments: container.args.clone().unwrap_or_default(),
        variables: variables
            .map(|variable| {
                let value = variable.value.clone().unwrap_or_default();
                (variable.name.clone(), value)
            })
            .collect(),
        run_as_user: security.and_then(|security| security.run_as_user),
        run_as_group: security.and_then(|security| security.run_as_group),
    }
}
