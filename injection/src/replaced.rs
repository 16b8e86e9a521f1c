//! The earlier injection that a new one replaces.

use std::fmt;

use serde_json::Value;

use crate::{
    containers::{self, PROXY},
    record::UNDO,
    status::STATUS,
};

/// The sidecar that a pod had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    is_own: bool,
    image: Option<String>,
}

impl Replaced {
    /// The sidecar of a pod that was injected, by this program or by Istio.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        let is_own = containers::annotation(pod, UNDO).is_some();
        if !is_own && containers::annotation(pod, STATUS).is_none() {
            return None;
        }
        let proxy = containers::find_any(pod, PROXY);
        let image = proxy.and_then(|proxy| proxy["image"].as_str());
        Some(Self {
            is_own,
            image: image.map(str::to_owned),
        })
    }
}

impl fmt::Display for Replaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_own {
            "replaces the sidecar of an earlier injection by this program"
        } else {
            "replaces the sidecar of an injection by Istio"
        })?;
        match &self.image {
            Some(image) => write!(formatter, ", image {image}"),
            None => Ok(()),
        }
    }
}
