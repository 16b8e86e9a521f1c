//! Back to the pod without its sidecar.

use serde_json::{Value, json};

use crate::{pod, record, refusal::Refusal, status::STATUS};

mod istio;

/// A pod without its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub enum Uninjected {
    /// The pod was not injected.
    Untouched,
    /// The original, from the record of the injection.
    Exact(Value),
    /// The original as far as Istio's output contains it, and what it does not contain.
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

/// Removes the sidecar of a `CronJob`'s Job template to which `istioctl kube-inject` added it: it
/// writes labels and annotations to the template of the Job, not to that of the pod.
pub fn uninject_job_template(template: &Value) -> Result<Uninjected, Refusal> {
    let pod = json!({
        "metadata": template["metadata"],
        "spec": template["spec"]["template"]["spec"],
    });
    let restored = |pod: &Value| {
        let mut restored = template.clone();
        restored["spec"]["template"]["spec"] = pod["spec"].clone();
        match pod.get("metadata") {
            Some(metadata) => restored["metadata"] = metadata.clone(),
            None => pod::remove(&mut restored, &["metadata"]),
        }
        restored
    };
    Ok(match uninject(&pod)? {
        Uninjected::BestEffort(pod, notes) => Uninjected::BestEffort(restored(&pod), notes),
        // This program writes no such template.
        Uninjected::Untouched | Uninjected::Exact(_) => Uninjected::Untouched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_cron_job_is_undone() {
        let status = r#"{"containers":["istio-proxy"]}"#;
        let template = json!({
            "metadata": {"annotations": {STATUS: status}, "labels": {"mine": "1"}},
            "spec": {"template": {
                "metadata": {"labels": {"app": "tick"}},
                "spec": {"containers": [{"name": "tick"}, {"name": "istio-proxy"}]},
            }},
        });
        let original = json!({
            "metadata": {"labels": {"mine": "1"}},
            "spec": {"template": {
                "metadata": {"labels": {"app": "tick"}},
                "spec": {"containers": [{"name": "tick"}]},
            }},
        });
        let Ok(Uninjected::BestEffort(undone, _)) = uninject_job_template(&template) else {
            panic!("Istio's output has no record");
        };
        assert_eq!(undone, original);
        let untouched = uninject_job_template(&original);
        assert_eq!(untouched, Ok(Uninjected::Untouched));
    }
}
