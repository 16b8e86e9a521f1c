//! The sidecar that a pod has.

use serde_json::Value;

use crate::{pod, record};

/// The annotation in which injectors write what they have added.
const STATUS: &str = "sidecar.istio.io/status";
const PROXY: &str = "istio-proxy";
const LISTS: [&str; 2] = ["initContainers", "containers"];

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
        let status = pod::annotation(pod, STATUS)
            .map(|text| serde_json::from_str(text).unwrap_or(Value::Null));
        let exists = |name: &str| {
            LISTS
                .iter()
                .any(|list| pod::named(&pod["spec"][list], name).is_some())
        };
        let containers: Vec<_> = match &status {
            Some(status) => LISTS
                .iter()
                .filter_map(|list| status[list].as_array())
                .flatten()
                .filter_map(Value::as_str)
                .filter(|name| exists(name))
                .map(str::to_owned)
                .collect(),
            None => Vec::new(),
        };
        if !exists(PROXY) && containers.is_empty() {
            return None;
        }
        let revision = status
            .as_ref()
            .and_then(|status| status["revision"].as_str());
        Some(Self {
            revision: revision.filter(|name| !name.is_empty()).map(str::to_owned),
            containers: if containers.is_empty() {
                vec![PROXY.to_owned()]
            } else {
                containers
            },
            is_ours: pod::annotation(pod, record::UNDO).is_some(),
        })
    }
}
