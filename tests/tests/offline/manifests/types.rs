//! Every object is valid for Kubernetes, and has no unknown field.

use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::{DaemonSet, Deployment},
        batch::v1::Job,
        core::v1::{ConfigMap, Namespace, ResourceQuota, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Rendered;

/// Multus' own type; the specification is omitted where the network is a file on the node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkAttachmentDefinition {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
}

/// An object after parsing and serializing with its type.
fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{}: {error}", object["metadata"]["name"]));
    serde_json::to_value(typed).unwrap()
}

fn through_its_type(object: &Value) -> Value {
    let through = match (
        object["apiVersion"].as_str().unwrap_or_default(),
        object["kind"].as_str().unwrap_or_default(),
    ) {
        ("v1", "Namespace") => through::<Namespace>,
        ("v1", "ServiceAccount") => through::<ServiceAccount>,
        ("v1", "ConfigMap") => through::<ConfigMap>,
        ("v1", "ResourceQuota") => through::<ResourceQuota>,
        ("v1", "Service") => through::<Service>,
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration") => {
            through::<MutatingWebhookConfiguration>
        }
        ("apps/v1", "DaemonSet") => through::<DaemonSet>,
        ("apps/v1", "Deployment") => through::<Deployment>,
        ("batch/v1", "Job") => through::<Job>,
        ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition") => {
            through::<NetworkAttachmentDefinition>
        }
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>,
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>,
        other => panic!("{other:?} is not among the kinds that are checked: add it here"),
    };
    through(object)
}

pub(super) fn check(rendered: &Rendered) {
    for object in &rendered.objects {
        let name = &object["metadata"]["name"];
        assert_eq!(
            &through_its_type(object),
            object,
            "{}: {name}: left, as Kubernetes parses it; right, as written",
            rendered.dir
        );
    }
}

#[test]
fn base_and_overlays_have_known_fields_only() {
    for rendered in Rendered::platforms() {
        check(rendered);
    }
}

#[test]
fn components_have_known_fields_only() {
    for example in ["examples/taint", "examples/live-annotations"] {
        check(&Rendered::of(example));
    }
}

#[test]
fn the_webhook_has_known_fields_only() {
    for dir in ["webhook", "examples/injection"] {
        check(&Rendered::of(dir));
    }
}

#[test]
fn the_uninstall_jobs_have_known_fields_only() {
    for example in ["examples/uninstall", "examples/uninstall-now"] {
        check(&Rendered::of(example));
    }
}

#[test]
fn an_unknown_field_is_found() {
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "interceptor", "nmespace": "typo"},
    });
    assert_ne!(through_its_type(&account), account);
}
