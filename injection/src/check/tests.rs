use serde_json::json;

use super::*;
use crate::{
    Sidecar as Injects,
    decision::{Policy, webhooks::Standard},
};

fn injector(revision: &str, behavior: Result<Behavior, String>) -> Injector {
    let standard = Standard {
        revision,
        by_default: false,
    };
    let mut configuration = standard.configuration();
    configuration.name = format!("injector-{revision}");
    configuration.created = Some("2026-01-02T00:00:00Z".to_owned());
    Injector {
        configuration,
        behavior,
    }
}

fn istiod(revision: &str) -> Injector {
    injector(revision, Ok(Behavior::Decides(Rules::default())))
}

fn ours() -> Injector {
    let check = |_: &str, value: &str| match value {
        "bad" => Err("expected good".to_owned()),
        _ => Ok(()),
    };
    let config = Config {
        rules: Rules::default(),
        sidecar: Injects::Builtin(Box::default(), check),
    };
    injector("default", Ok(Behavior::Injects(Box::new(config))))
}

fn namespace(labels: &[(&str, &str)]) -> Namespace {
    let labels = labels.iter();
    Namespace {
        name: "shop".to_owned(),
        labels: labels
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        object: Value::Null,
    }
}

const ENABLED: &[(&str, &str)] = &[("istio-injection", "enabled")];

/// A pod of a Deployment, created on the first of January.
fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-5d-x", "generateName": "web-5d-",
            "labels": {"pod-template-hash": "5d"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "controller": true},
            ],
        },
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn with_sidecar(revision: &str) -> Value {
    let mut pod = pod();
    let status =
        json!({"containers": ["istio-proxy"], "initContainers": null, "revision": revision});
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/status": status.to_string()});
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "istio-proxy", "image": "proxy:1"}));
    pod
}

fn kinds(report: &Report<'_>) -> Vec<&'static str> {
    report.notes.iter().map(|note| note.kind.label()).collect()
}

fn existing<'a>(pod: &'a Value, namespace: &'a Namespace) -> Subjected<'a> {
    Subjected {
        pod,
        namespace,
        exists: true,
        owner: None,
    }
}

#[test]
fn each_injector_answers_for_itself() {
    let injectors = [istiod("canary"), ours()];
    let namespace = namespace(ENABLED);
    let pod = pod();
    let report = check(
        Subjected {
            exists: false,
            ..existing(&pod, &namespace)
        },
        &injectors,
    );
    let answers: Vec<_> = report
        .answers
        .iter()
        .map(|(_, answer)| (answer.webhook.as_deref(), answer.result.rule()))
        .collect();
    let expected = [
        (None, "other_revision"),
        (Some("namespace.injector.interceptor.dev"), "policy_enabled"),
    ];
    assert_eq!(answers, expected);
    assert_eq!(report.overall(), Overall::Injected);
    assert_eq!(kinds(&report), [""; 0]);
}

#[test]
fn our_own_injector_refuses_what_it_refuses() {
    let injectors = [ours()];
    let namespace = namespace(ENABLED);
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"traffic.sidecar.istio.io/includeInboundPorts": "bad"});
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(report.overall(), Overall::Refused);
    let words = report.answers[0].1.result.words();
    assert!(
        words.contains("includeInboundPorts \"bad\": expected good"),
        "{words}"
    );
}

#[test]
fn what_is_not_known_is_said() {
    let namespace = namespace(ENABLED);
    let pod = pod();
    let unreadable = [injector("default", Err("forbidden".to_owned()))];
    let report = check(existing(&pod, &namespace), &unreadable);
    assert_eq!(report.overall(), Overall::Unknown);
    assert!(report.answers[0].1.result.words().ends_with("forbidden"));

    let object = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "w.istio.io", "clientConfig": {"url": "https://x/inject"},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}],
        "matchConditions": [{"name": "not-test", "expression": "true"}],
    }]});
    let conditional = |policy| {
        let rules = Rules {
            policy,
            ..Rules::default()
        };
        [Injector {
            configuration: Configuration::parse(&object).unwrap(),
            behavior: Ok(Behavior::Decides(rules)),
        }]
    };
    let injectors = conditional(Policy::Enabled);
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(report.overall(), Overall::Unknown);
    assert!(report.answers[0].1.result.words().contains("(not-test)"));
    // The injector does nothing in either case.
    let injectors = conditional(Policy::Disabled);
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(report.overall(), Overall::NotInjected);
}

#[test]
fn two_injectors_are_a_warning() {
    let injectors = [istiod("default"), ours()];
    let namespace = namespace(ENABLED);
    let pod = with_sidecar("default");
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(kinds(&report), ["two_injectors"]);
    assert!(report.notes[0].kind.is_warning());
}

#[test]
fn a_missing_sidecar_has_its_causes() {
    let mut namespace = namespace(ENABLED);
    let set = |time: &str| {
        json!({"metadata": {
            "labels": {"istio-injection": "enabled"},
            "managedFields": [
                {"time": "2026-01-09T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {"f:other": {}}}}},
                {"time": time, "fieldsV1": {"f:metadata": {"f:labels": {"f:istio-injection": {}}}}},
            ],
        }})
    };
    let injectors = [ours()];
    namespace.object = set("2026-01-03T00:00:00Z");
    let pod = pod();
    let report = check(existing(&pod, &namespace), &injectors);
    let expected = [
        "sidecar_missing",
        "created_before_webhook",
        "created_before_label",
    ];
    assert_eq!(kinds(&report), expected);
    let text = &report.notes[0].text;
    assert!(
        text.ends_with("`kubectl rollout restart deployment/web -n shop`"),
        "{text}"
    );
    assert!(report.notes[2].text.contains("2026-01-03T00:00:00Z"));

    // Neither a label nor a webhook is newer than the pod, but failures are ignored.
    let mut injectors = [ours()];
    injectors[0].configuration.created = None;
    for webhook in &mut injectors[0].configuration.webhooks {
        webhook.ignores_failures = true;
    }
    namespace.object = set("2025-12-31T00:00:00Z");
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(kinds(&report), ["sidecar_missing", "failures_ignored"]);
}

#[test]
fn a_sidecar_that_a_new_pod_would_not_get_is_explained() {
    let injectors = [ours()];
    let pod = with_sidecar("default");
    let plain = namespace(&[]);
    let report = check(existing(&pod, &plain), &injectors);
    assert_eq!(kinds(&report), ["sidecar_unexpected"]);
    let enabled = namespace(ENABLED);
    let old = with_sidecar("old");
    let report = check(existing(&old, &enabled), &injectors);
    assert_eq!(kinds(&report), ["other_revision"]);
}

#[test]
fn a_static_pod_is_not_missing_a_sidecar() {
    let injectors = [ours()];
    let namespace = namespace(ENABLED);
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
    let report = check(existing(&pod, &namespace), &injectors);
    assert_eq!(kinds(&report), ["static_pod"]);
}

#[test]
fn a_sidecar_is_what_the_status_names() {
    assert_eq!(Sidecar::of(&pod()), None);
    let found = Sidecar::of(&with_sidecar("r")).unwrap();
    assert_eq!(found.revision.as_deref(), Some("r"));
    assert_eq!(found.containers, ["istio-proxy"]);
    // A status without the containers, as after a removal by hand.
    let mut removed = with_sidecar("r");
    removed["spec"]["containers"].as_array_mut().unwrap().pop();
    assert_eq!(Sidecar::of(&removed), None);
    // A proxy that was written by hand.
    let mut by_hand = with_sidecar("r");
    by_hand["metadata"]["annotations"] = Value::Null;
    let found = Sidecar::of(&by_hand).unwrap();
    assert_eq!((found.revision, found.is_ours), (None, false));
}

#[test]
fn without_injectors_this_is_the_reason() {
    let namespace = namespace(ENABLED);
    let pod = pod();
    let report = check(existing(&pod, &namespace), &[]);
    assert_eq!(report.overall(), Overall::NotInjected);
    assert_eq!(kinds(&report), ["no_injector"]);
}
