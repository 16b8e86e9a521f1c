//! Where the pod template of each kind of workload is.

use serde_json::Value;

use crate::Owner;

/// A pod template in an object, or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The JSON pointer to the pod or the template.
    pub pointer: String,
    /// The object that has the template.
    pub owner: Owner,
}

/// The path from an object of this group and kind to its pod template.
fn template(api_version: &str, kind: &str) -> Option<&'static str> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    Some(match (group, kind) {
        ("", "Pod") => "",
        ("", "ReplicationController")
        | ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job")
        | ("" | "apps.openshift.io", "DeploymentConfig")
        | ("argoproj.io", "Rollout") => "/spec/template",
        // Istio's kube-inject writes labels and annotations to the template of the Job, where no
        // pod has them.
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}

/// The pod templates of `object`: one of a workload, those of the items of a List, none of another
/// kind or of a workload whose template is elsewhere.
#[must_use]
pub fn of(object: &Value) -> Vec<Workload> {
    let mut found = Vec::new();
    collect(object, "", &mut found);
    found
}

fn collect(object: &Value, pointer: &str, found: &mut Vec<Workload>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    if (api_version.as_str(), kind.as_str()) == ("v1", "List") {
        let items = object["items"].as_array().into_iter().flatten();
        for (index, item) in items.enumerate() {
            collect(item, &format!("{pointer}/items/{index}"), found);
        }
        return;
    }
    let Some(path) = template(&api_version, &kind) else {
        return;
    };
    if !object.pointer(path).is_some_and(Value::is_object) {
        return;
    }
    found.push(Workload {
        pointer: format!("{pointer}{path}"),
        owner: Owner {
            api_version,
            kind,
            name: text(name(&object["metadata"])),
            namespace: text(&object["metadata"]["namespace"]),
        },
    });
}

fn name(metadata: &Value) -> &Value {
    metadata.get("name").unwrap_or(&metadata["generateName"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(object: &Value) -> Vec<String> {
        of(object).into_iter().map(|found| found.pointer).collect()
    }

    #[test]
    fn each_kind_has_its_template() {
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "StatefulSet"),
            ("batch/v1", "Job"),
            ("v1", "ReplicationController"),
            ("apps.openshift.io/v1", "DeploymentConfig"),
            ("argoproj.io/v1alpha1", "Rollout"),
        ] {
            let object = json!({
                "apiVersion": api_version, "kind": kind, "spec": {"template": {"spec": {}}},
            });
            assert_eq!(pointers(&object), ["/spec/template"], "{kind}");
        }
        let cron = json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "spec": {"jobTemplate": {"spec": {"template": {"spec": {}}}}},
        });
        assert_eq!(pointers(&cron), ["/spec/jobTemplate/spec/template"]);
    }

    #[test]
    fn a_list_is_searched() {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "spec": {"template": {}}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x"}},
            {"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {}}},
            ]},
        ]});
        let found = of(&list);
        assert_eq!(found[0].pointer, "/items/1");
        assert_eq!(found[0].owner.name, "a");
        assert_eq!(found[0].owner.namespace, "x");
        assert_eq!(found[1].pointer, "/items/2/items/0/spec/template");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn other_objects_have_none() {
        for object in [
            json!(null),
            json!("text"),
            json!({"kind": "Deployment", "spec": {"template": {}}}),
            json!({"apiVersion": "x/v1", "kind": "Deployment", "spec": {"template": {}}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}}),
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
                "spec": {"workloadRef": {}}}),
        ] {
            assert_eq!(pointers(&object), [""; 0], "{object}");
        }
    }
}
