//! The parts of a Kubernetes pod that selection and settings depend on. Only these are kept: a node has
//! hundreds of pods, and each object is tens of kilobytes.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{api::core::v1 as k8s, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

pub use crate::pod_name::PodName;

/// Parts of the names of all annotations and labels that the agent reads.
const KEPT_KEYS: [&str; 2] = ["istio.io/", "interceptor."];

/// The annotation in which kubelet stores a static pod's UID on the mirror object.
const MIRRORED: &str = "kubernetes.io/config.mirror";

/// The pod UID that kubelet, the runtime and cgroups use. A static pod's differs from the UID of its
/// mirror object in the API. Events about the pod use this UID, and `kubectl describe` finds them by
/// it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl PodUid {
    /// The UID of the pod with this metadata. `None` if it has no UID, which the API never sends.
    ///
    /// kubelet uses a digest without dashes as a static pod's UID. Any user who may create pods can set
    /// the annotation, so a UID in the API server's format is ignored: it could be that of another pod.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let uid = metadata.uid.clone()?;
        let annotations = metadata.annotations.as_ref();
        let mirrored = annotations
            .and_then(|annotations| annotations.get(MIRRORED))
            .filter(|mirrored| !mirrored.is_empty() && !mirrored.contains('-'));
        Some(Self(mirrored.cloned().unwrap_or(uid)))
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Its UID.
    pub uid: PodUid,
    /// Its labels that the agent may read.
    pub labels: BTreeMap<String, String>,
    /// Its annotations that the agent may read.
    pub annotations: BTreeMap<String, String>,
    /// Whether it uses the node's network namespace.
    pub host_network: bool,
    /// The name of its `RuntimeClass`.
    pub runtime_class: Option<String>,
    /// Its init containers, including native sidecars.
    pub init_containers: Vec<Container>,
    /// Its other containers.
    pub containers: Vec<Container>,
    /// Whether its phase is `Succeeded` or `Failed`.
    pub is_finished: bool,
    /// Whether any container has started.
    pub has_started: bool,
    /// The names of the init containers that have started in the pod's current sandbox.
    pub started_init_containers: Vec<String>,
    /// The init containers' IDs, by container name.
    pub init_container_ids: BTreeMap<String, String>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its entry point, if the pod sets one.
    pub command: Vec<String>,
    /// The arguments of the entry point.
    pub arguments: Vec<String>,
    /// Its environment variables. Variables with `valueFrom` are empty, as for istio-cni.
    pub variables: BTreeMap<String, String>,
    /// `securityContext.runAsUser`
    pub run_as_user: Option<i64>,
    /// `securityContext.runAsGroup`
    pub run_as_group: Option<i64>,
}

impl Pod {
    /// The relevant parts of `pod`. `None` if it has no name, namespace or UID, which the API never
    /// sends.
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
            uid: PodUid::of(metadata)?,
            labels: kept(metadata.labels.as_ref()),
            annotations: kept(metadata.annotations.as_ref()),
            host_network: spec.host_network.unwrap_or(false),
            runtime_class: spec.runtime_class_name.clone(),
            init_containers: containers(spec.init_containers.as_deref().unwrap_or(&[])),
            containers: containers(&spec.containers),
            is_finished: matches!(phase, Some("Succeeded" | "Failed")),
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
    /// The value of a variable, or an empty string.
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

/// A terminated init container may have run in the previous sandbox, as after a reboot, and will run
/// again. So an init container counts while it runs, or while a regular container runs.
fn started_init_containers(
    init: &[k8s::ContainerStatus],
    rest: &[k8s::ContainerStatus],
) -> Vec<String> {
    let is_initialized = rest
        .iter()
        .any(|status| is_running(status) || is_crash_looping(status));
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

/// kubelet sets this reason only while it restarts a container within one sandbox.
fn is_crash_looping(status: &k8s::ContainerStatus) -> bool {
    let waiting = status
        .state
        .as_ref()
        .and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

/// The containers whose details are kept.
const DETAILED: [&str; 2] = ["istio-init", "istio-proxy"];

fn containers(containers: &[k8s::Container]) -> Vec<Container> {
    containers.iter().map(container).collect()
}

/// Of an app's container only the name is kept.
fn container(container: &k8s::Container) -> Container {
    if !DETAILED.contains(&container.name.as_str()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2f9b1c34-0f3a-4b6e-8f0e-6a2d1c9e7b55";

    fn uid(annotations: &[(&str, &str)]) -> Option<String> {
        let annotations = annotations.iter();
        let annotations = annotations.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = ObjectMeta {
            uid: Some(UID.to_owned()),
            annotations: Some(annotations.collect()),
            ..ObjectMeta::default()
        };
        PodUid::of(&metadata).map(|uid| uid.0)
    }

    #[test]
    fn a_static_pod_has_the_uid_in_its_mirror_annotation() {
        let digest = "0f3a4b6e8f0e6a2d1c9e7b552f9b1c34";
        assert_eq!(uid(&[(MIRRORED, digest)]).as_deref(), Some(digest));
        assert_eq!(
            uid(&[("kubernetes.io/config.hash", digest)]).as_deref(),
            Some(UID)
        );
    }

    /// An annotation cannot claim the UID of another pod.
    #[test]
    fn a_mirror_annotation_with_an_api_server_uid_is_ignored() {
        let other = "11111111-0f3a-4b6e-8f0e-6a2d1c9e7b55";
        assert_eq!(uid(&[(MIRRORED, other)]).as_deref(), Some(UID));
        assert_eq!(uid(&[(MIRRORED, "")]).as_deref(), Some(UID));
    }
}
