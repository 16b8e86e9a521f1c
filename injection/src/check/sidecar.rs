//! The sidecar that a pod has.

use serde_json::Value;

use crate::{
    containers::{CONTAINERS, INIT_CONTAINERS, PROXY},
    pod, record,
    status::Status,
};

/// A sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The injector's revision, if the pod's annotation has it.
    pub revision: Option<String>,
    /// The containers that were added.
    pub containers: Vec<String>,
    /// Whether this program has injected it.
    pub is_ours: bool,
}

impl Sidecar {
    /// The sidecar of `pod`: what its status names, or else a container with the proxy's name.
    #[must_use]
    pub fn of(pod: &Value) -> Option<Self> {
        let status = Status::of(pod).unwrap_or_default();
        let exists = |name: &str| {
            [INIT_CONTAINERS, CONTAINERS]
                .iter()
                .any(|list| pod::named(&pod["spec"][list], name).is_some())
        };
        let named = [status.init_containers, status.containers];
        let containers: Vec<_> = named
            .into_iter()
            .flatten()
            .flatten()
            .filter(|name| exists(name))
            .collect();
        if !exists(PROXY) && containers.is_empty() {
            return None;
        }
        Some(Self {
            revision: Some(status.revision).filter(|name| !name.is_empty()),
            containers: if containers.is_empty() {
                vec![PROXY.to_owned()]
            } else {
                containers
            },
            is_ours: pod::annotation(pod, record::UNDO).is_some(),
        })
    }
}
