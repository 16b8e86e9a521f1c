//! The whole matrix of decisions against an oracle that is written from the tables of Istio's
//! documentation, not from this code: it lists what must hold, and has no order of rules.

use serde_json::{Value, json};

use super::*;

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
