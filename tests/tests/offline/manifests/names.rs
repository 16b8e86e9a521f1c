//! References between objects: labels, accounts, volumes, the image.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace},
    rbac::v1::{ClusterRoleBinding, RoleBinding, Subject},
};

use super::{Rendered, source};

const NAMESPACE: &str = "interceptor-system";

#[test]
fn the_daemonset_selects_its_own_pods() {
    for rendered in Rendered::platforms() {
        let spec = rendered.only::<DaemonSet>("DaemonSet").spec.unwrap();
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        let selected = spec.selector.match_labels.unwrap();
        assert!(!selected.is_empty());
        for (label, value) in selected {
            assert_eq!(labels.get(&label), Some(&value), "{}", rendered.dir);
        }
    }
}

#[test]
fn everything_is_in_the_created_namespace() {
    for rendered in Rendered::platforms() {
        let namespaces: Vec<_> = rendered.kind("Namespace").collect();
        assert_eq!(namespaces.len(), 1);
        assert_eq!(namespaces[0]["metadata"]["name"], NAMESPACE);
        for object in &rendered.objects {
            let kind = object["kind"].as_str().unwrap();
            // Istio's network definition is in that namespace too, for all pods.
            if kind == "NetworkAttachmentDefinition" {
                assert_eq!(object["metadata"]["namespace"], "default");
            } else if kind != "Namespace" && !kind.starts_with("Cluster") {
                assert_eq!(object["metadata"]["namespace"], NAMESPACE, "{kind}");
            }
        }
    }
}

/// The agent's namespace may be terminating, and then accepts nothing.
#[test]
fn the_uninstall_jobs_have_their_own_namespace() {
    for example in ["examples/uninstall", "examples/uninstall-now"] {
        let rendered = Rendered::of(example);
        let namespace = rendered.only::<Namespace>("Namespace").metadata;
        assert_ne!(namespace.name.as_deref(), Some(NAMESPACE));
        let job = rendered.only::<Job>("Job").metadata;
        assert_eq!(job.namespace, namespace.name, "{example}");
        let labels = namespace.labels.unwrap_or_default();
        let enforced = labels.get("pod-security.kubernetes.io/enforce");
        assert_eq!(enforced.map(String::as_str), Some("privileged"));
    }
}

/// The subjects of a role.
fn subjects(rendered: &Rendered) -> Vec<Subject> {
    let cluster = rendered.typed::<ClusterRoleBinding>("ClusterRoleBinding");
    let own = rendered.typed::<RoleBinding>("RoleBinding");
    let cluster = cluster.into_iter().filter_map(|binding| binding.subjects);
    let own = own.into_iter().filter_map(|binding| binding.subjects);
    cluster.chain(own).flatten().collect()
}

#[test]
fn roles_are_bound_to_the_agents_account_only() {
    for rendered in Rendered::platforms() {
        let account = rendered.pod().service_account_name.unwrap();
        let subjects = subjects(rendered);
        assert!(subjects.len() >= 2, "{}", rendered.dir);
        for subject in subjects {
            assert_eq!(subject.kind, "ServiceAccount");
            assert_eq!(subject.name, account);
            assert_eq!(subject.namespace.as_deref(), Some(NAMESPACE));
        }
    }
}

/// A volume without a mount is an unneeded privilege, and two mounts at one path result from a
/// patch that replaces none.
#[test]
fn every_volume_is_mounted_once() {
    for rendered in Rendered::platforms() {
        let volumes: BTreeSet<_> = rendered
            .pod()
            .volumes
            .unwrap()
            .into_iter()
            .map(|volume| volume.name)
            .collect();
        let mounts = rendered.agent().volume_mounts.unwrap();
        assert_eq!(mounts.len(), volumes.len(), "{}", rendered.dir);
        let mounted = mounts.into_iter().map(|mount| mount.name).collect();
        assert_eq!(volumes, mounted, "{}", rendered.dir);
    }
}

/// Its name has the hash of the values, so that new values restart the pods.
#[test]
fn the_agent_reads_the_rendered_values() {
    for rendered in Rendered::platforms() {
        let values: ConfigMap = rendered.only("ConfigMap");
        let name = values.metadata.name.unwrap();
        assert!(name.starts_with("interceptor-"), "{name}");
        for variable in rendered.agent().env.unwrap() {
            let reference = variable.value_from.and_then(|from| from.config_map_key_ref);
            if let Some(reference) = reference {
                assert_eq!(reference.name, name, "{}", rendered.dir);
            }
        }
    }
}

#[test]
fn the_image_is_that_of_this_version() {
    let image = format!("interceptor:{}", env!("CARGO_PKG_VERSION"));
    for rendered in Rendered::platforms() {
        assert_eq!(rendered.agent().image.as_ref(), Some(&image));
    }
    let uninstall: Job = Rendered::of("examples/uninstall").only("Job");
    let pod = uninstall.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_ref(), Some(&image));
    assert!(source("deploy/examples/istio-init.yaml").contains(&image));
}
