//! The admission webhook: what selects pods, what fails without it, and what it may do.

use std::{collections::BTreeSet, sync::LazyLock};

use interceptor_testkit::interceptor;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
        apps::v1::Deployment,
        core::v1::{PodSpec, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde_json::{Value, json};

use super::Rendered;
use crate::pod_security;

const NAMESPACE: &str = "interceptor-system";

/// Everything that deploys the webhook, except for what a user writes.
const DIRECTORIES: [&str; 4] = [
    "webhook",
    "examples/injection",
    "examples/injection-istio",
    "examples/injection-beside-istiod",
];

/// They are rendered once for all tests.
fn rendered() -> &'static [Rendered; 4] {
    static RENDERED: LazyLock<[Rendered; 4]> = LazyLock::new(|| DIRECTORIES.map(Rendered::of));
    &RENDERED
}

/// The revision that a manifest's webhooks are of.
fn revision(rendered: &Rendered) -> &'static str {
    match &*rendered.dir {
        "examples/injection-beside-istiod" => "interceptor",
        _ => "default",
    }
}

fn deployment(rendered: &Rendered) -> Deployment {
    rendered.only("Deployment")
}

fn pod(rendered: &Rendered) -> PodSpec {
    let spec = deployment(rendered).spec.unwrap();
    spec.template.spec.unwrap()
}

fn webhooks(rendered: &Rendered) -> Vec<MutatingWebhook> {
    let configuration: MutatingWebhookConfiguration = rendered.only("MutatingWebhookConfiguration");
    configuration.webhooks.unwrap()
}

/// Whether `selector` matches these labels, as the API server evaluates it.
fn matches(selector: &LabelSelector, labels: &Value) -> bool {
    assert_eq!(selector.match_labels, None);
    let mut expressions = selector.match_expressions.iter().flatten();
    expressions.all(|expression| {
        let value = labels[&expression.key].as_str();
        let values = expression.values.as_deref().unwrap_or_default();
        let is_listed = value.is_some_and(|value| values.iter().any(|one| one == value));
        match &*expression.operator {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("{other} is no operator"),
        }
    })
}

/// The webhook that is called, by Istio's rules for an injector of `revision`. Namespaces and pods
/// without a revision are those of the default one.
fn expected(
    revision: &str,
    namespace: [Option<&str>; 2],
    pod: [Option<&str>; 2],
) -> Option<&'static str> {
    let [injection, namespace_revision] = namespace;
    let [inject, pod_revision] = pod;
    let is_default = revision == "default";
    match (injection, namespace_revision) {
        _ if inject == Some("false") => None,
        (Some("enabled"), _) => is_default.then_some("namespace."),
        (None, Some(named)) if named == revision => Some("rev.namespace."),
        (Some(_), _) | (None, Some(_)) => None,
        (None, None) => match pod_revision {
            Some(named) if named == revision => Some("rev.object."),
            Some(_) => None,
            None => (is_default && inject == Some("true")).then_some("object."),
        },
    }
}

#[test]
fn each_pod_is_selected_once_and_as_by_istio() {
    for rendered in rendered() {
        each_pod_is_selected_once(&webhooks(rendered), revision(rendered));
    }
}

fn each_pod_is_selected_once(webhooks: &[MutatingWebhook], own_revision: &str) {
    let injections = [
        None,
        Some("enabled"),
        Some("disabled"),
        Some(""),
        Some("true"),
    ];
    let revisions = [
        None,
        Some("default"),
        Some("interceptor"),
        Some("canary"),
        Some(""),
    ];
    let choices = [None, Some("true"), Some("false"), Some(""), Some("yes")];
    let mut called = BTreeSet::new();
    for injection in injections {
        for namespace_revision in revisions {
            for choice in choices {
                for revision in revisions {
                    let namespace = json!({
                        "kubernetes.io/metadata.name": "shop",
                        "istio-injection": injection, "istio.io/rev": namespace_revision,
                    });
                    let labels =
                        json!({"sidecar.istio.io/inject": choice, "istio.io/rev": revision});
                    let names: Vec<_> = webhooks
                        .iter()
                        .filter(|webhook| {
                            matches(webhook.namespace_selector.as_ref().unwrap(), &namespace)
                                && matches(webhook.object_selector.as_ref().unwrap(), &labels)
                        })
                        .map(|webhook| webhook.name.trim_end_matches("injector.interceptor.dev"))
                        .collect();
                    let namespaces = [injection, namespace_revision];
                    let one = expected(own_revision, namespaces, [choice, revision]);
                    assert_eq!(names, one.as_slice(), "{namespace} {labels}");
                    called.extend(one);
                }
            }
        }
    }
    assert_eq!(called.len(), webhooks.len());
}

/// Without a replica, pods of these namespaces must be created: its own, and those that the cluster
/// needs to start.
#[test]
fn neither_the_cluster_nor_the_webhook_depends_on_it() {
    for rendered in rendered() {
        for name in [NAMESPACE, "kube-system", "kube-public", "kube-node-lease"] {
            for webhook in webhooks(rendered) {
                let own = Some(revision(rendered));
                for (injection, revision) in [(Some("enabled"), None), (None, own)] {
                    let labels = json!({
                        "kubernetes.io/metadata.name": name,
                        "istio-injection": injection, "istio.io/rev": revision,
                    });
                    let selector = webhook.namespace_selector.as_ref().unwrap();
                    assert!(!matches(selector, &labels), "{}: {name}", webhook.name);
                }
            }
        }
        let own = deployment(rendered)
            .spec
            .unwrap()
            .template
            .metadata
            .unwrap();
        assert_eq!(own.labels.unwrap()["sidecar.istio.io/inject"], "false");
    }
}

#[test]
fn pods_that_are_selected_are_injected_or_refused() {
    for webhook in rendered().iter().flat_map(webhooks) {
        let name = &webhook.name;
        assert_eq!(webhook.failure_policy.as_deref(), Some("Fail"), "{name}");
        assert_eq!(webhook.side_effects, "None", "{name}");
        assert_eq!(
            webhook.reinvocation_policy.as_deref(),
            Some("IfNeeded"),
            "{name}"
        );
        assert_eq!(
            webhook.match_policy.as_deref(),
            Some("Equivalent"),
            "{name}"
        );
        assert!(webhook.timeout_seconds.unwrap() <= 5, "{name}");
        assert!(
            webhook.admission_review_versions.contains(&"v1".to_owned()),
            "{name}"
        );
        let rules: Vec<_> = webhook.rules.unwrap();
        assert_eq!(rules.len(), 1, "{name}");
        assert_eq!(
            rules[0].resources.as_deref(),
            Some(&["pods".to_owned()][..]),
            "{name}"
        );
        assert_eq!(
            rules[0].operations.as_deref(),
            Some(&["CREATE".to_owned()][..]),
            "{name}"
        );
        // The webhook sets it; a manifest that has it would undo that.
        assert_eq!(webhook.client_config.ca_bundle, None, "{name}");
    }
}

/// istiod overwrites `caBundle` of webhooks with such a name, in configurations with its label.
#[test]
fn no_name_is_one_of_istios() {
    for rendered in rendered() {
        for webhook in webhooks(rendered) {
            assert!(
                webhook.name.ends_with(".injector.interceptor.dev"),
                "{}",
                webhook.name
            );
        }
        for object in &rendered.objects {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap();
            assert!(name.starts_with("interceptor"), "{name}");
            for label in ["istio.io/rev", "istio.io/tag"] {
                assert!(metadata["labels"][label].is_null(), "{name}");
            }
        }
    }
}

#[test]
fn webhook_service_and_pods_belong_together() {
    for rendered in rendered() {
        let service: Service = rendered.only("Service");
        let spec = service.spec.unwrap();
        let port = &spec.ports.unwrap()[0];
        for webhook in webhooks(rendered) {
            let reference = webhook.client_config.service.unwrap();
            assert_eq!(Some(&reference.name), service.metadata.name.as_ref());
            assert_eq!(
                Some(&reference.namespace),
                service.metadata.namespace.as_ref()
            );
            assert_eq!(reference.namespace, NAMESPACE);
            assert_eq!(reference.port, Some(port.port));
            assert_eq!(reference.path.as_deref(), Some("/inject"));
        }
        let template = deployment(rendered).spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        let budget: PodDisruptionBudget = rendered.only("PodDisruptionBudget");
        let budget = budget.spec.unwrap();
        let selected = [
            spec.selector.unwrap(),
            budget.selector.unwrap().match_labels.unwrap(),
            deployment(rendered)
                .spec
                .unwrap()
                .selector
                .match_labels
                .unwrap(),
        ];
        for selector in selected {
            assert!(!selector.is_empty());
            assert!(
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            );
        }
        let ports = pod(rendered).containers.remove(0).ports.unwrap();
        let Some(IntOrString::String(target)) = &port.target_port else {
            panic!("the port has no name");
        };
        assert!(ports.iter().any(|port| port.name.as_ref() == Some(target)));
    }
}

#[test]
fn a_drain_leaves_a_replica() {
    for rendered in rendered() {
        let spec = deployment(rendered).spec.unwrap();
        assert!(spec.replicas.unwrap() >= 2);
        let update = spec.strategy.unwrap().rolling_update.unwrap();
        assert_eq!(update.max_unavailable, Some(IntOrString::Int(0)));
        let budget: PodDisruptionBudget = rendered.only("PodDisruptionBudget");
        let least = budget.spec.unwrap().min_available;
        assert_eq!(least, Some(IntOrString::Int(1)));
    }
}

#[test]
fn the_webhooks_pods_pass_pod_security_restricted() {
    for rendered in rendered() {
        let pod = pod(rendered);
        assert_eq!(pod_security::violations(&pod), [""; 0], "{}", rendered.dir);
        let context = pod.containers[0].security_context.as_ref().unwrap();
        assert_eq!(context.read_only_root_filesystem, Some(true));
    }
}

#[test]
fn the_webhook_knows_its_arguments_and_variables() {
    let help = interceptor::try_run(["webhook", "--help"]).unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for rendered in rendered() {
        let container = pod(rendered).containers.remove(0);
        let image = format!("interceptor:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(container.image, Some(image), "{}", rendered.dir);
        let mut arguments = container.args.unwrap().into_iter();
        assert_eq!(arguments.next().as_deref(), Some("webhook"));
        for argument in arguments {
            let flag = argument.split('=').next().unwrap();
            assert!(help.contains(flag), "{flag}: {help}");
        }
        for variable in container.env.into_iter().flatten() {
            let shown = format!("[env: {}=", variable.name);
            assert!(help.contains(&shown), "{}: {help}", variable.name);
        }
    }
}
