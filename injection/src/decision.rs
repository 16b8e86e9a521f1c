//! Whether a pod is injected, and which rule decides: the order of istiod (`injectRequired`).

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::pod;

pub mod selector;
pub mod webhooks;

use selector::Selector;

/// The label, or annotation, of a pod that decides about its injection.
pub const INJECT: &str = "sidecar.istio.io/inject";

/// Namespaces whose pods are never injected.
pub const SYSTEM_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// The rule that decides. The webhook, the command and the metrics print the same word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The pod is in the node's network namespace.
    HostNetwork,
    /// The namespace is Kubernetes' own.
    SystemNamespace,
    /// The policy is neither `enabled` nor `disabled`.
    PolicyInvalid,
    /// The pod's label is `true`.
    LabelTrue,
    /// The pod's label is `false`.
    LabelFalse,
    /// The pod's annotation is `true`, and it has no such label.
    AnnotationTrue,
    /// The pod's annotation is `false`, and it has no such label.
    AnnotationFalse,
    /// A selector of `neverInjectSelector` matches.
    NeverSelector,
    /// A selector of `alwaysInjectSelector` matches.
    AlwaysSelector,
    /// The policy is `enabled`, and no other rule applies.
    PolicyEnabled,
    /// The policy is `disabled`, and no other rule applies.
    PolicyDisabled,
    /// The namespace's label `istio-injection` has another value than `enabled`.
    NamespaceDisabled,
    /// The namespace or the pod belongs to another revision.
    OtherRevision,
    /// The webhooks exclude the namespace by its name.
    NamespaceExcluded,
    /// Neither the namespace nor the pod has a label that asks for injection.
    NoLabel,
    /// The webhooks have other selectors than Istio's, and none matches.
    NotSelected,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::HostNetwork,
        Self::SystemNamespace,
        Self::PolicyInvalid,
        Self::LabelTrue,
        Self::LabelFalse,
        Self::AnnotationTrue,
        Self::AnnotationFalse,
        Self::NeverSelector,
        Self::AlwaysSelector,
        Self::PolicyEnabled,
        Self::PolicyDisabled,
        Self::NamespaceDisabled,
        Self::OtherRevision,
        Self::NamespaceExcluded,
        Self::NoLabel,
        Self::NotSelected,
    ];

    /// The reason as a label of metrics and a value of audit annotations.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.names().0
    }

    /// The reason in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::HostNetwork => ("host_network", "the pod uses the host network"),
            Self::SystemNamespace => (
                "system_namespace",
                "the namespace is one of Kubernetes' own",
            ),
            Self::PolicyInvalid => (
                "policy_invalid",
                "the policy of the injector's configuration is neither enabled nor disabled",
            ),
            Self::LabelTrue => ("label_true", "the label sidecar.istio.io/inject is true"),
            Self::LabelFalse => ("label_false", "the label sidecar.istio.io/inject is false"),
            Self::AnnotationTrue => (
                "annotation_true",
                "the annotation sidecar.istio.io/inject is true",
            ),
            Self::AnnotationFalse => (
                "annotation_false",
                "the annotation sidecar.istio.io/inject is false",
            ),
            Self::NeverSelector => (
                "never_selector",
                "a selector of neverInjectSelector matches the pod's labels",
            ),
            Self::AlwaysSelector => (
                "always_selector",
                "a selector of alwaysInjectSelector matches the pod's labels",
            ),
            Self::PolicyEnabled => (
                "policy_enabled",
                "the policy is enabled, and no label or annotation of the pod decides",
            ),
            Self::PolicyDisabled => (
                "policy_disabled",
                "the policy is disabled, and no label or annotation of the pod decides",
            ),
            Self::NamespaceDisabled => (
                "namespace_disabled",
                "the namespace's label istio-injection is not enabled",
            ),
            Self::OtherRevision => (
                "other_revision",
                "the labels of the namespace or the pod select another revision",
            ),
            Self::NamespaceExcluded => (
                "namespace_excluded",
                "the webhooks exclude the namespace by its name",
            ),
            Self::NoLabel => (
                "no_label",
                "neither the namespace nor the pod has a label that enables injection",
            ),
            Self::NotSelected => (
                "not_selected",
                "no selector of the webhooks matches the labels of the namespace and the pod",
            ),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// What applies if the pod does not decide itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Pods are injected.
    #[default]
    Enabled,
    /// Pods are not injected.
    Disabled,
    /// No pod is injected: the configuration has an unknown value, or none.
    Invalid,
}

impl Policy {
    /// The policy of this name in the injector's configuration.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "enabled" => Self::Enabled,
            "disabled" => Self::Disabled,
            _ => Self::Invalid,
        }
    }
}

/// The part of the injector's configuration that decides. The default injects every pod that does
/// not object, as `kube-inject`.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What applies if neither the pod nor a selector decides.
    pub policy: Policy,
    /// Pods that are not injected unless their own label or annotation is `true`.
    pub never: Vec<Selector>,
    /// Pods that are injected unless their own label or annotation is `false`.
    pub always: Vec<Selector>,
}

impl Rules {
    /// The rules of Istio's configuration: its policy and its lists of selectors. Also a warning for
    /// each selector that cannot be used.
    #[must_use]
    pub fn of_istio(policy: &str, never: &Value, always: &Value) -> (Self, Vec<String>) {
        let (never, mut warnings) = selector::list("neverInjectSelector", never);
        let (always, others) = selector::list("alwaysInjectSelector", always);
        warnings.extend(others);
        let rules = Self {
            policy: Policy::named(policy),
            never,
            always,
        };
        (rules, warnings)
    }
}

/// Whether a pod is injected, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the pod is injected.
    pub inject: bool,
    /// The rule that decides.
    pub reason: Reason,
}

const fn yes(reason: Reason) -> Decision {
    Decision {
        inject: true,
        reason,
    }
}

const fn no(reason: Reason) -> Decision {
    Decision {
        inject: false,
        reason,
    }
}

/// Decides about `pod` in `namespace`.
#[must_use]
pub fn decide(pod: &Value, namespace: &str, rules: &Rules) -> Decision {
    if pod["spec"]["hostNetwork"] == true {
        return no(Reason::HostNetwork);
    }
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return no(Reason::SystemNamespace);
    }
    if rules.policy == Policy::Invalid {
        return no(Reason::PolicyInvalid);
    }
    let labels = pod::strings(&pod["metadata"]["labels"]);
    of_pod(pod)
        .or_else(|| of_selectors(&labels, rules))
        .unwrap_or(match rules.policy {
            Policy::Enabled => yes(Reason::PolicyEnabled),
            _ => no(Reason::PolicyDisabled),
        })
}

/// The pod's own choice. A label, even an empty one, hides the annotation.
fn of_pod(pod: &Value) -> Option<Decision> {
    let metadata = &pod["metadata"];
    match (
        metadata["labels"][INJECT].as_str(),
        metadata["annotations"][INJECT].as_str(),
    ) {
        (Some("true"), _) => Some(yes(Reason::LabelTrue)),
        (Some("false"), _) => Some(no(Reason::LabelFalse)),
        (None, Some("true")) => Some(yes(Reason::AnnotationTrue)),
        (None, Some("false")) => Some(no(Reason::AnnotationFalse)),
        _ => None,
    }
}

fn of_selectors(labels: &BTreeMap<&str, &str>, rules: &Rules) -> Option<Decision> {
    let matches = |selectors: &[Selector]| selectors.iter().any(|one| one.matches(labels));
    if matches(&rules.never) {
        return Some(no(Reason::NeverSelector));
    }
    matches(&rules.always).then(|| yes(Reason::AlwaysSelector))
}

/// The value of the pod's label, or annotation, if it has no effect because it is neither `true`
/// nor `false`.
#[must_use]
pub fn ignored_choice(pod: &Value) -> Option<&str> {
    let metadata = &pod["metadata"];
    let value = [
        &metadata["labels"][INJECT],
        &metadata["annotations"][INJECT],
    ]
    .into_iter()
    .find_map(Value::as_str)?;
    (!["", "true", "false"].contains(&value)).then_some(value)
}

#[cfg(test)]
mod tests;
