//! Calls by Istio's selectors, written a second time from its chart and from its documentation.

use serde_json::{Value, json};

use super::*;
use crate::decision::{Rules, decide};

const CHOICES: [Option<&str>; 5] = [None, Some(""), Some("true"), Some("false"), Some("yes")];

fn call(
    standard: &Standard<'_>,
    namespace: &str,
    namespace_labels: &Labels<'_>,
    pod_labels: &Labels<'_>,
) -> Result<(), Reason> {
    let creation = Creation::new(namespace, namespace_labels.clone(), pod_labels.clone());
    match standard.configuration().called(&creation) {
        Called::Yes(_) => Ok(()),
        Called::No(reason) => Err(reason),
        Called::IfConditions(_) => panic!("no standard webhook has conditions"),
    }
}

/// The webhooks of Istio's chart, literally: namespace selector and object selector of each. The
/// revision is `R`, or the default.
fn called_by_chart(
    revision: &str,
    by_default: bool,
    namespace: &BTreeMap<&str, &str>,
    pod: &BTreeMap<&str, &str>,
) -> bool {
    let default = revision == "default";
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
    let absent = |key| expression(key, "DoesNotExist", &[]);
    let neither = [absent("istio-injection"), absent("istio.io/rev")];
    let not_false = expression(INJECT, "NotIn", &["false"]);
    let of_revision = expression("istio.io/rev", "In", &[revision]);
    let mut webhooks = vec![
        (
            vec![of_revision.clone(), absent("istio-injection")],
            vec![not_false.clone()],
        ),
        (neither.to_vec(), vec![not_false.clone(), of_revision]),
    ];
    if default {
        let enabled = expression("istio-injection", "In", &["enabled"]);
        webhooks.push((vec![enabled], vec![not_false]));
        let asked = expression(INJECT, "In", &["true"]);
        webhooks.push((neither.to_vec(), vec![asked, absent("istio.io/rev")]));
        if by_default {
            webhooks.push((
                neither.to_vec(),
                vec![absent(INJECT), absent("istio.io/rev")],
            ));
        }
    }
    let matches = |expressions: &Vec<Value>, labels: &BTreeMap<&str, &str>| {
        let selector = json!({"matchExpressions": expressions});
        Selector::parse(&selector).unwrap().matches(labels)
    };
    webhooks
        .iter()
        .any(|(by_namespace, by_pod)| matches(by_namespace, namespace) && matches(by_pod, pod))
}

#[test]
fn the_api_server_calls_as_the_chart_selects() {
    let injections = [
        None,
        Some("enabled"),
        Some("disabled"),
        Some(""),
        Some("Enabled"),
    ];
    let revisions = [None, Some("default"), Some("R"), Some("S")];
    let labels = |entries: [(&'static str, Option<&'static str>); 2]| {
        let present = |(key, value): (_, Option<_>)| Some((key, value?));
        entries
            .into_iter()
            .filter_map(present)
            .collect::<BTreeMap<_, _>>()
    };
    for injection in injections {
        for namespace_revision in revisions {
            let namespace = labels([
                ("istio-injection", injection),
                ("istio.io/rev", namespace_revision),
            ]);
            for inject in CHOICES {
                for revision in revisions {
                    let pod = labels([(INJECT, inject), ("istio.io/rev", revision)]);
                    assert_calls(&namespace, &pod);
                }
            }
        }
    }
}

fn assert_calls(namespace: &BTreeMap<&str, &str>, pod: &BTreeMap<&str, &str>) {
    for (revision, by_default) in [("default", false), ("default", true), ("R", false)] {
        let webhooks = Standard {
            revision,
            by_default,
        };
        let expected = called_by_chart(revision, by_default, namespace, pod);
        let call = call(&webhooks, "shop", namespace, pod);
        assert_eq!(
            call.is_ok(),
            expected,
            "{revision} {by_default} {namespace:?} {pod:?}"
        );
    }
}

#[test]
fn system_namespaces_are_not_injected_by_default() {
    let webhooks = Standard {
        revision: "",
        by_default: true,
    };
    let none = BTreeMap::new();
    assert_eq!(call(&webhooks, "shop", &none, &none), Ok(()));
    let call = call(&webhooks, "kube-system", &none, &none);
    assert_eq!(call, Err(Reason::SystemNamespace));
}

/// A row of the table in Istio's documentation of injection: labels of the namespace, label and
/// annotation of the pod, revision of the pod, and whether the default revision injects it.
type Row = [&'static str; 6];

/// `-` is absent, `*` is any value.
const TABLE: [Row; 14] = [
    ["enabled", "*", "-", "-", "*", "yes"],
    ["enabled", "*", "-", "true", "*", "yes"],
    ["enabled", "*", "-", "false", "*", "no"],
    ["enabled", "*", "true", "*", "*", "yes"],
    ["enabled", "*", "false", "*", "*", "no"],
    ["disabled", "*", "*", "*", "*", "no"],
    ["", "*", "*", "*", "*", "no"],
    ["-", "default", "true", "*", "*", "yes"],
    ["-", "default", "-", "-", "*", "yes"],
    ["-", "default", "-", "false", "*", "no"],
    ["-", "default", "false", "*", "*", "no"],
    ["-", "R", "*", "*", "*", "no"],
    ["-", "-", "true", "*", "-", "yes"],
    ["-", "-", "-", "*", "-", "no"],
];

/// What a cell stands for.
fn values(cell: &'static str) -> Vec<Option<&'static str>> {
    match cell {
        "-" => vec![None],
        "*" => vec![
            None,
            Some("true"),
            Some("false"),
            Some("default"),
            Some("R"),
        ],
        value => vec![Some(value)],
    }
}

#[test]
fn both_halves_together_follow_istios_table() {
    for [
        injection,
        namespace_revision,
        label,
        annotation,
        revision,
        expected,
    ] in TABLE
    {
        let axes = [injection, namespace_revision, label, annotation, revision].map(values);
        let count: usize = axes.iter().map(Vec::len).product();
        for mut index in 0..count {
            let cells = axes.each_ref().map(|axis| {
                let cell = axis[index % axis.len()];
                index /= axis.len();
                cell
            });
            assert_eq!(is_injected(cells), expected == "yes", "{cells:?}");
        }
    }
}

fn is_injected(cells: [Option<&'static str>; 5]) -> bool {
    let [injection, namespace_revision, label, annotation, revision] = cells;
    let present = |entries: [(&'static str, Option<&'static str>); 2]| {
        let entries = entries
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        entries.collect::<BTreeMap<_, _>>()
    };
    let namespace = present([
        ("istio-injection", injection),
        ("istio.io/rev", namespace_revision),
    ]);
    let labels = present([(INJECT, label), ("istio.io/rev", revision)]);
    let annotations = present([(INJECT, annotation), ("other", None)]);
    let webhooks = Standard {
        revision: "",
        by_default: false,
    };
    let pod = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": {}});
    call(&webhooks, "shop", &namespace, &labels).is_ok()
        && decide(&pod, "shop", &Rules::default()).inject
}

/// A configuration with one webhook, in which these fields are replaced.
fn configuration(fields: &Value) -> Configuration {
    let mut webhook = json!({
        "name": "inject.example.org",
        "clientConfig": {"service": {"namespace": "mesh", "name": "hook", "path": "/mutate"}},
        "rules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["CREATE"], "scope": "Namespaced",
        }],
    });
    for (field, value) in fields.as_object().unwrap() {
        webhook[field] = value.clone();
    }
    let object = json!({"metadata": {"name": "one"}, "webhooks": [webhook]});
    Configuration::parse(&object).unwrap()
}

fn plain() -> Creation<'static> {
    Creation::new("shop", BTreeMap::new(), BTreeMap::new())
}

#[test]
fn rules_are_those_of_the_api() {
    let rule = |field: &str, value: &Value| {
        let mut rule = json!({
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["CREATE"],
        });
        rule[field] = value.clone();
        json!({"rules": [{"operations": ["DELETE"]}, rule]})
    };
    for (field, value, expected) in [
        ("operations", json!(["UPDATE", "CREATE"]), true),
        ("operations", json!(["*"]), true),
        ("operations", json!(["UPDATE", "CONNECT"]), false),
        ("apiGroups", json!(["*"]), true),
        ("apiGroups", json!(["apps"]), false),
        ("apiVersions", json!(["*"]), true),
        ("apiVersions", json!(["v2"]), false),
        ("resources", json!(["*"]), true),
        ("resources", json!(["*/*"]), true),
        ("resources", json!(["pods/*"]), true),
        ("resources", json!(["pods/exec", "*/status"]), false),
        ("resources", json!(["deployments"]), false),
        ("scope", json!("*"), true),
        ("scope", json!("Namespaced"), true),
        ("scope", json!("Cluster"), false),
    ] {
        let configuration = configuration(&rule(field, &value));
        let called = configuration.called(&plain());
        let is_called = matches!(called, Called::Yes(_));
        assert_eq!(is_called, expected, "{field} {value}: {called:?}");
    }
    assert!(matches!(
        configuration(&json!({"rules": null})).called(&plain()),
        Called::No(Reason::NotSelected)
    ));
}

#[test]
fn match_conditions_leave_the_question_open() {
    let conditions = json!([{"name": "not-a-job", "expression": "true"}]);
    let open = configuration(&json!({"matchConditions": conditions}));
    assert!(matches!(open.called(&plain()), Called::IfConditions(_)));
    let Call::IfConditions(names) = open.webhooks[0].call(&plain()) else {
        panic!("{open:?}")
    };
    assert_eq!(names, ["not-a-job"]);
    // Unless another requirement decides.
    let unselected = json!({"matchLabels": {"a": "b"}});
    let closed =
        configuration(&json!({"matchConditions": conditions, "objectSelector": unselected}));
    assert!(matches!(closed.called(&plain()), Called::No(_)));
}

#[test]
fn injectors_are_recognized() {
    let service = |name: &str, path: &str| json!({"clientConfig": {"service": {"namespace": "x", "name": name, "path": path}}});
    let url = |url: &str| json!({"clientConfig": {"url": url}});
    for (fields, expected) in [
        (json!({}), false),
        (
            json!({"name": "rev.namespace.sidecar-injector.istio.io"}),
            true,
        ),
        (service("istiod", "/x"), true),
        (service("istiod-canary", ""), true),
        (service("istiodoor", "/injected"), false),
        (service("hook", "/inject"), true),
        (service("hook", "/inject/cluster/one"), true),
        (url("https://example.org:8443/inject/net/a"), true),
        (url("https://example.org/inject"), true),
        (url("https://inject/other"), false),
        (
            json!({"name": "a.istio.io", "rules": [{"operations": ["CREATE"]}]}),
            false,
        ),
    ] {
        let found = configuration(&fields).is_injector();
        assert_eq!(found, expected, "{fields}");
    }
}

#[test]
fn a_selector_of_a_newer_version_is_an_error() {
    let like = json!([{"key": "a", "operator": "Like", "values": ["1"]}]);
    let object = json!({"metadata": {"name": "one"}, "webhooks": [{
        "name": "w", "clientConfig": {"url": "https://x"},
        "objectSelector": {"matchExpressions": like},
    }]});
    let error = Configuration::parse(&object).unwrap_err().to_string();
    assert!(error.starts_with("webhook w: objectSelector: "), "{error}");
}

const NAMESPACES: [&str; 3] = ["shop", "kube-system", "mesh"];

/// Our webhooks, which exclude two namespaces by their names.
fn excluding() -> Configuration {
    let standard = Standard {
        revision: "",
        by_default: false,
    };
    let mut configuration = standard.configuration();
    let excluded = json!({"matchExpressions": [
        {"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["mesh", "kube-system"]},
    ]});
    for webhook in &mut configuration.webhooks {
        let excluded = Selector::parse(&excluded).unwrap();
        webhook.namespace_selector = webhook.namespace_selector.with(&excluded);
    }
    configuration
}

/// Every combination of the labels that matter, in each namespace.
fn creations() -> Vec<Creation<'static>> {
    const INJECTIONS: [Option<&str>; 4] = [None, Some("enabled"), Some("disabled"), Some("")];
    const REVISIONS: [Option<&str>; 4] = [None, Some("default"), Some("R"), Some("S")];
    let present = |entries: [(&'static str, Option<&'static str>); 2]| {
        let entries = entries.into_iter();
        entries
            .filter_map(|(key, value)| Some((key, value?)))
            .collect::<Labels<'_>>()
    };
    let mut creations = Vec::new();
    for namespace in NAMESPACES {
        for injection in INJECTIONS {
            for of_namespace in REVISIONS {
                for inject in CHOICES {
                    for of_pod in REVISIONS {
                        creations.push(Creation::new(
                            namespace,
                            present([(INJECTION, injection), (REVISION, of_namespace)]),
                            present([(INJECT, inject), (REVISION, of_pod)]),
                        ));
                    }
                }
            }
        }
    }
    creations
}

fn configurations() -> Vec<Configuration> {
    let standard = [("", false), ("", true), ("R", false)];
    let standard = standard.map(|(revision, by_default)| {
        let standard = Standard {
            revision,
            by_default,
        };
        standard.configuration()
    });
    standard.into_iter().chain([excluding()]).collect()
}

/// What a user does who reads the reason; the other labels enable injection already, or the user
/// does it too.
fn corrected<'a>(creation: &Creation<'a>, reason: Reason, revision: &'a str) -> Creation<'a> {
    let without = |creation: &Creation<'a>| {
        creation.with(Place::Namespace, INJECTION, None).with(
            Place::Namespace,
            REVISION,
            Some(revision),
        )
    };
    match reason {
        Reason::LabelFalse => creation.with(Place::Pod, INJECT, Some("true")),
        Reason::NamespaceDisabled | Reason::OtherRevision | Reason::NoLabel => without(creation),
        Reason::SystemNamespace | Reason::NamespaceExcluded => {
            let mut moved = creation.clone();
            moved.namespace = "shop";
            moved.with(Place::Namespace, NAMESPACE_NAME, Some("shop"))
        }
        reason => panic!("{reason:?}"),
    }
}

/// Following the reasons one after the other ends with a call, and no reason comes twice.
#[test]
fn reasons_lead_to_a_call() {
    for configuration in configurations() {
        let revision = configuration.revision().unwrap();
        for creation in creations() {
            let mut current = creation.clone();
            let mut reasons = Vec::new();
            while let Called::No(reason) = configuration.called(&current) {
                assert!(!reasons.contains(&reason), "{creation:?}: {reasons:?}");
                reasons.push(reason);
                current = corrected(&current, reason, revision);
            }
        }
    }
}

fn others(other: Configuration) -> OtherInjectors {
    let mut ours = excluding();
    "ours".clone_into(&mut ours.name);
    for webhook in &mut ours.webhooks {
        webhook.target = Target::Service {
            namespace: "mesh".to_owned(),
            name: "ours".to_owned(),
            path: "/inject".to_owned(),
        };
    }
    OtherInjectors::of("ours", vec![other, ours])
}

/// Against the definition: our webhook is called, and so is the other one, in all namespaces or in
/// some.
#[test]
fn two_injectors_are_found_if_they_exist() {
    for other in configurations() {
        let found = others(other.clone());
        let is_called = |configuration: &Configuration, creation: &Creation<'_>| {
            matches!(configuration.called(creation), Called::Yes(_))
        };
        let ours: Vec<_> = creations()
            .into_iter()
            .filter(|creation| is_called(&excluding(), creation))
            .collect();
        let any = ours.iter().any(|creation| is_called(&other, creation));
        assert_eq!(found.overlaps().next().is_some(), any, "{}", other.name);
        for creation in &ours {
            let same_pod = ours.iter().filter(|one| {
                one.namespace == creation.namespace && one.pod_labels == creation.pod_labels
            });
            let always = same_pod.into_iter().all(|one| is_called(&other, one));
            let certain = found.also_called(creation.namespace, &creation.pod_labels);
            assert_eq!(certain.count() > 0, always, "{creation:?}");
        }
    }
}

#[test]
fn our_own_service_is_no_other_injector() {
    let own = configuration(&json!({
        "clientConfig": {"service": {"namespace": "mesh", "name": "ours", "path": "/inject/net/a"}},
    }));
    assert_eq!(others(own).overlaps().count(), 0);
    let other = configuration(&json!({"name": "x.istio.io"}));
    let found = others(other);
    let overlaps: Vec<_> = found.overlaps().collect();
    let [overlap] = overlaps[..] else {
        panic!("{overlaps:?}");
    };
    assert_eq!(
        (overlap.configuration, overlap.webhook),
        ("one", "x.istio.io")
    );
    assert_eq!(overlap.ours, "rev.namespace.injector.interceptor.dev");
    // Conditions can exclude any pod.
    let conditions = json!([{"name": "c", "expression": "false"}]);
    let open = configuration(&json!({"name": "x.istio.io", "matchConditions": conditions}));
    let found = others(open);
    assert_eq!(found.overlaps().count(), 1);
    let labels = BTreeMap::from([(INJECT, "true")]);
    assert_eq!(found.also_called("shop", &labels).count(), 0);
}
