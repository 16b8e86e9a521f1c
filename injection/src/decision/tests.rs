//! The whole matrix of decisions against an oracle that is written from the tables of Istio's
//! documentation, not from this code: it lists what must hold, and has no order of rules.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{webhooks::Webhooks, *};

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
struct Case {
    label: Option<&'static str>,
    annotation: Option<&'static str>,
    host_network: bool,
    namespace: &'static str,
    policy: Policy,
    never: bool,
    always: bool,
}

const CHOICES: [Option<&str>; 5] = [None, Some(""), Some("true"), Some("false"), Some("yes")];

const POLICIES: [Policy; 3] = [Policy::Enabled, Policy::Disabled, Policy::Invalid];
const NAMESPACES: [&str; 3] = ["default", "kube-system", "local-path-storage"];
const COUNT: usize = CHOICES.len() * CHOICES.len() * POLICIES.len() * NAMESPACES.len() * 8;

/// Every combination: the digits of a number whose places have different bases.
fn cases() -> impl Iterator<Item = Case> {
    (0..COUNT).map(|mut index| {
        let mut digit = |base| {
            let digit = index % base;
            index /= base;
            digit
        };
        Case {
            label: CHOICES[digit(CHOICES.len())],
            annotation: CHOICES[digit(CHOICES.len())],
            policy: POLICIES[digit(POLICIES.len())],
            namespace: NAMESPACES[digit(NAMESPACES.len())],
            host_network: digit(2) == 1,
            never: digit(2) == 1,
            always: digit(2) == 1,
        }
    })
}

impl Case {
    fn pod(&self) -> Value {
        let mut pod =
            json!({"metadata": {"labels": {"app": "web"}, "annotations": {}}, "spec": {}});
        for (field, value) in [("labels", self.label), ("annotations", self.annotation)] {
            if let Some(value) = value {
                pod["metadata"][field][INJECT] = value.into();
            }
        }
        if self.host_network {
            pod["spec"]["hostNetwork"] = true.into();
        }
        pod
    }

    fn rules(&self) -> Rules {
        let selector = |matches| {
            let value = if matches { "web" } else { "db" };
            vec![Selector::parse(&json!({"matchLabels": {"app": value}})).unwrap()]
        };
        Rules {
            policy: self.policy,
            never: selector(self.never),
            always: selector(self.always),
        }
    }

    /// Whether the pod is injected: each line names one sentence of the documentation.
    fn expected(&self) -> bool {
        let may =
            !self.host_network && self.namespace == "default" && self.policy != Policy::Invalid;
        let choice = self.label.or(self.annotation);
        let explicit_yes = choice == Some("true");
        let explicit_no = choice == Some("false");
        let selected = !self.never && (self.always || self.policy == Policy::Enabled);
        may && (explicit_yes || (!explicit_no && selected))
    }
}

#[test]
fn the_matrix_equals_the_oracle() {
    for case in cases() {
        let decision = decide(&case.pod(), case.namespace, &case.rules());
        assert_eq!(decision.inject, case.expected(), "{case:?}: {decision:?}");
        let skips = !decision.reason.label().ends_with("_true")
            && ![Reason::AlwaysSelector, Reason::PolicyEnabled].contains(&decision.reason);
        assert_eq!(skips, !decision.inject, "{case:?}: {decision:?}");
    }
}

/// A change of one input that the reason names changes the result, or the reason.
#[test]
fn the_reason_is_the_rule_that_decides() {
    for case in cases() {
        let decision = decide(&case.pod(), case.namespace, &case.rules());
        let other = match decision.reason {
            Reason::HostNetwork => Case {
                host_network: false,
                ..case
            },
            Reason::SystemNamespace => Case {
                namespace: "default",
                ..case
            },
            Reason::PolicyInvalid | Reason::PolicyDisabled => Case {
                policy: Policy::Enabled,
                ..case
            },
            Reason::LabelTrue | Reason::LabelFalse => Case {
                label: Some(""),
                ..case
            },
            Reason::AnnotationTrue | Reason::AnnotationFalse => Case {
                annotation: None,
                ..case
            },
            Reason::NeverSelector => Case {
                never: false,
                ..case
            },
            Reason::AlwaysSelector => Case {
                always: false,
                ..case
            },
            Reason::PolicyEnabled => Case {
                policy: Policy::Disabled,
                ..case
            },
            reason => panic!("{reason:?} is not a rule of the injector"),
        };
        let changed = decide(&other.pod(), other.namespace, &other.rules());
        assert_ne!(changed.reason, decision.reason, "{case:?}");
    }
}

#[test]
fn reasons_have_names_of_their_own() {
    for by in [Reason::label, Reason::words] {
        let names: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(by).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}

#[test]
fn a_choice_without_effect_is_found() {
    let pod = |label: &str| json!({"metadata": {"labels": {INJECT: label}}});
    for none in ["", "true", "false"] {
        assert_eq!(ignored_choice(&pod(none)), None);
    }
    assert_eq!(ignored_choice(&pod("yes")), Some("yes"));
    assert_eq!(ignored_choice(&json!({})), None);
}

#[test]
fn fields_of_a_wrong_type_decide_nothing() {
    for metadata in [
        json!(1),
        json!({"labels": []}),
        json!({"labels": {INJECT: true}}),
    ] {
        let pod = json!({"metadata": metadata, "spec": {"hostNetwork": "true"}});
        let decision = decide(&pod, "default", &Rules::default());
        assert_eq!(decision.reason, Reason::PolicyEnabled);
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
        let webhooks = Webhooks {
            revision: revision.to_owned(),
            by_default,
        };
        let expected = called_by_chart(revision, by_default, namespace, pod);
        let call = webhooks.call("shop", namespace, pod);
        assert_eq!(
            call.is_ok(),
            expected,
            "{revision} {by_default} {namespace:?} {pod:?}"
        );
    }
}

#[test]
fn system_namespaces_are_not_injected_by_default() {
    let webhooks = Webhooks {
        revision: String::new(),
        by_default: true,
    };
    let none = BTreeMap::new();
    assert_eq!(webhooks.call("shop", &none, &none), Ok(()));
    let call = webhooks.call("kube-system", &none, &none);
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
    let webhooks = Webhooks {
        revision: String::new(),
        by_default: false,
    };
    let pod = json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": {}});
    webhooks.call("shop", &namespace, &labels).is_ok()
        && decide(&pod, "shop", &Rules::default()).inject
}
