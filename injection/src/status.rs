//! The annotation `sidecar.istio.io/status`: what was injected.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::containers::{self, CONTAINERS, INIT_CONTAINERS};

/// The annotation.
pub(crate) const STATUS: &str = "sidecar.istio.io/status";

/// The names of what the templates have. Absent lists are `null`, as Istio writes them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) init_containers: Option<Vec<String>>,
    pub(crate) containers: Option<Vec<String>>,
    pub(crate) volumes: Option<Vec<String>>,
    pub(crate) image_pull_secrets: Option<Vec<String>>,
    pub(crate) revision: String,
}

impl fmt::Display for Status {
    /// As JSON.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Strings and lists of strings can be written as JSON.
        formatter.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Status {
    /// The status of a pod that was injected before. It is empty if it cannot be read.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        let status = containers::annotation(pod, STATUS)?;
        Some(serde_json::from_str(status).unwrap_or_default())
    }

    /// Whether the templates had this container in `list`.
    pub(crate) fn names(&self, list: &str, container: &Value) -> bool {
        let names = match list {
            CONTAINERS => &self.containers,
            INIT_CONTAINERS => &self.init_containers,
            _ => return false,
        };
        let names = names.as_deref().unwrap_or_default();
        names.iter().any(|name| container["name"] == name.as_str())
    }
}
