//! Back to the pod without its sidecar.

use serde_json::Value;

use crate::{pod, record, refusal::Refusal};

mod istio;

/// The annotation that names what was injected.
pub(crate) const STATUS: &str = "sidecar.istio.io/status";

/// A pod without its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub enum Uninjected {
    /// The pod was not injected.
    Untouched,
    /// The original, from the record of the injection.
    Exact(Value),
    /// The original as far as Istio's output tells, and what it does not tell.
    BestEffort(Value, Vec<String>),
}

/// Removes the sidecar of `pod`.
pub fn uninject(pod: &Value) -> Result<Uninjected, Refusal> {
    pod::check_shape(pod)?;
    if let Some(original) = record::original(pod)? {
        return Ok(Uninjected::Exact(original));
    }
    if pod["metadata"]["annotations"][STATUS].is_null() {
        return Ok(Uninjected::Untouched);
    }
    let (original, notes) = istio::uninject(pod)?;
    Ok(Uninjected::BestEffort(original, notes))
}
