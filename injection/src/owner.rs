//! The workload of a pod, as Istio derives it (`GetDeployMetaFromPod`).

use serde_json::Value;

use crate::Owner;

/// The workload of `pod` in `namespace`: from its controller if the pod is one of many, else the pod
/// itself.
#[must_use]
pub fn of_pod(pod: &Value, namespace: &str) -> Owner {
    let metadata = &pod["metadata"];
    let owner = |api_version: &str, kind: &str, name: &str| Owner {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: metadata["namespace"]
            .as_str()
            .unwrap_or(namespace)
            .to_owned(),
    };
    let generate_name = metadata["generateName"].as_str().unwrap_or_default();
    let Some(controller) = controller(pod).filter(|_| !generate_name.is_empty()) else {
        let name = metadata["name"].as_str().filter(|name| !name.is_empty());
        return owner("v1", "Pod", name.unwrap_or(generate_name));
    };
    let text = |key: &str| controller[key].as_str().unwrap_or_default();
    let name = text("name");
    let label = |key: &str| metadata["labels"][key].as_str();
    match text("kind") {
        "ReplicaSet" => {
            let without_hash = |key| {
                name.strip_suffix(label(key)?)?
                    .strip_suffix('-')
                    .filter(|name| !name.is_empty())
            };
            if let Some(rollout) = without_hash("rollouts-pod-template-hash") {
                return owner("v1alpha1", "Rollout", rollout);
            }
            if let Some(deployment) = without_hash("pod-template-hash") {
                return owner(text("apiVersion"), "Deployment", deployment);
            }
        }
        "ReplicationController" => {
            if let Some(config) = label("deploymentconfig").filter(|name| !name.is_empty()) {
                return owner(text("apiVersion"), "DeploymentConfig", config);
            }
        }
        "Job" => {
            if let Some(cron) = cron_job(name) {
                return owner("batch/v1", "CronJob", cron);
            }
        }
        _ => {}
    }
    owner(text("apiVersion"), text("kind"), name)
}

fn controller(pod: &Value) -> Option<&Value> {
    let references = pod["metadata"]["ownerReferences"].as_array()?;
    references
        .iter()
        .find(|reference| reference["controller"] == true)
}

/// The `CronJob` of a Job that is named after the minute of its start.
fn cron_job(job: &str) -> Option<&str> {
    let (cron, minute) = job.rsplit_once('-')?;
    let is_minute = (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit());
    (is_minute && !cron.is_empty()).then_some(cron)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn derived(api_version: &str, kind: &str, name: &str, labels: &Value) -> String {
        let pod = json!({"metadata": {
            "generateName": "x-",
            "labels": labels,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "other"},
                {"apiVersion": api_version, "kind": kind, "name": name, "controller": true},
            ],
        }});
        let owner = of_pod(&pod, "ns");
        assert_eq!(owner.namespace, "ns");
        format!("{} {} {}", owner.api_version, owner.kind, owner.name)
    }

    #[test]
    fn controllers_of_controllers_are_derived() {
        let hash = json!({"pod-template-hash": "8494"});
        let rollout = json!({"rollouts-pod-template-hash": "8494"});
        let config = json!({"deploymentconfig": "web"});
        let none = json!({});
        for (api_version, kind, name, labels, expected) in [
            (
                "apps/v1",
                "ReplicaSet",
                "web-8494",
                &hash,
                "apps/v1 Deployment web",
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "web-8495",
                &hash,
                "apps/v1 ReplicaSet web-8495",
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "web-8494",
                &rollout,
                "v1alpha1 Rollout web",
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "web-8494",
                &none,
                "apps/v1 ReplicaSet web-8494",
            ),
            (
                "v1",
                "ReplicationController",
                "web-1",
                &config,
                "v1 DeploymentConfig web",
            ),
            (
                "v1",
                "ReplicationController",
                "web-1",
                &none,
                "v1 ReplicationController web-1",
            ),
            (
                "batch/v1",
                "Job",
                "sum-28484850",
                &none,
                "batch/v1 CronJob sum",
            ),
            (
                "batch/v1",
                "Job",
                "sum-2848485",
                &none,
                "batch/v1 Job sum-2848485",
            ),
            (
                "apps/v1",
                "StatefulSet",
                "db",
                &none,
                "apps/v1 StatefulSet db",
            ),
        ] {
            assert_eq!(derived(api_version, kind, name, labels), expected);
        }
    }

    #[test]
    fn a_pod_without_a_controller_is_its_own() {
        for (metadata, expected) in [
            (
                json!({"name": "a", "ownerReferences": [
                {"kind": "ReplicaSet", "name": "r", "controller": true}]}),
                "a",
            ),
            (json!({"generateName": "a-"}), "a-"),
        ] {
            let owner = of_pod(&json!({"metadata": metadata}), "ns");
            assert_eq!((&*owner.kind, &*owner.name), ("Pod", expected));
        }
    }
}
