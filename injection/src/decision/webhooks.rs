//! Which webhooks the API server calls for a pod: the selectors and rules of
//! `MutatingWebhookConfiguration`s, and why none of a configuration matches.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    INJECT, Reason, SYSTEM_NAMESPACES,
    selector::{Requirement, Selector, UNLISTED},
};

mod overlap;
mod parse;
mod standard;

pub use overlap::{OtherInjectors, Overlap};
pub use parse::Invalid;
pub use standard::{DEFAULT_REVISION, Standard};

/// The namespace's label that turns injection on or off.
pub const INJECTION: &str = "istio-injection";
/// The label of a namespace or a pod that names the injector's revision.
pub const REVISION: &str = "istio.io/rev";
/// The label that the API server gives every namespace: its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

type Labels<'a> = BTreeMap<&'a str, &'a str>;

/// The creation of a pod, as webhooks select it.
#[derive(Clone, Debug)]
pub struct Creation<'a> {
    /// The name of the namespace.
    pub namespace: &'a str,
    namespace_labels: Labels<'a>,
    pod_labels: Labels<'a>,
}

impl<'a> Creation<'a> {
    /// A pod with these labels in a namespace with these labels.
    #[must_use]
    pub fn new(
        namespace: &'a str,
        mut namespace_labels: Labels<'a>,
        pod_labels: Labels<'a>,
    ) -> Self {
        namespace_labels.insert(NAMESPACE_NAME, namespace);
        Self {
            namespace,
            namespace_labels,
            pod_labels,
        }
    }

    /// The same with another value of a label, or without the label.
    fn with(&self, place: Place, key: &'a str, value: Option<&'a str>) -> Self {
        let mut changed = self.clone();
        let labels = match place {
            Place::Namespace => &mut changed.namespace_labels,
            Place::Pod => &mut changed.pod_labels,
        };
        match value {
            Some(value) => labels.insert(key, value),
            None => labels.remove(key),
        };
        changed
    }
}

/// Whose label.
#[derive(Clone, Copy)]
enum Place {
    Namespace,
    Pod,
}

/// A `MutatingWebhookConfiguration`.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// `metadata.name`
    pub name: String,
    /// `metadata.creationTimestamp`, if it has one.
    pub created: Option<String>,
    revision: Option<String>,
    /// The webhooks, in the order in which they are called.
    pub webhooks: Vec<Webhook>,
}

/// One webhook of a configuration.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `name`
    pub name: String,
    /// The program that is called.
    pub target: Target,
    /// Whether failures of the webhook are ignored.
    pub ignores_failures: bool,
    namespace_selector: Selector,
    object_selector: Selector,
    is_for_new_pods: bool,
    match_conditions: Vec<String>,
}

/// `clientConfig`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Service in the cluster.
    Service {
        /// `service.namespace`
        namespace: String,
        /// `service.name`
        name: String,
        /// `service.path`
        path: String,
    },
    /// A URL.
    Url(String),
}

/// Whether the API server calls a webhook.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    /// It does.
    Yes,
    /// It does if these match conditions are true: expressions, which are not evaluated here.
    IfConditions(&'a [String]),
    /// The rules do not contain the creation of pods.
    NoRule,
    /// The labels of the namespace do not meet this requirement.
    Namespace(&'a Requirement),
    /// The labels of the pod do not meet this requirement.
    Pod(&'a Requirement),
}

/// Whether the API server calls a webhook of a configuration.
#[derive(Clone, Debug)]
pub enum Called<'a> {
    /// It calls at least this one.
    Yes(&'a Webhook),
    /// It calls this one if its match conditions are true, and no other one.
    IfConditions(&'a Webhook),
    /// It calls none, for this reason.
    No(Reason),
}

impl Webhook {
    /// Whether the API server calls the webhook for this pod.
    ///
    /// `matchPolicy` makes no difference: pods exist in one version of one group.
    #[must_use]
    pub fn call(&self, creation: &Creation<'_>) -> Call<'_> {
        if !self.is_for_new_pods {
            return Call::NoRule;
        }
        if let Some(unmet) = self.namespace_selector.unmet(&creation.namespace_labels) {
            return Call::Namespace(unmet);
        }
        if let Some(unmet) = self.object_selector.unmet(&creation.pod_labels) {
            return Call::Pod(unmet);
        }
        if self.match_conditions.is_empty() {
            Call::Yes
        } else {
            Call::IfConditions(&self.match_conditions)
        }
    }

    fn selects(&self, creation: &Creation<'_>) -> bool {
        matches!(self.call(creation), Call::Yes | Call::IfConditions(_))
    }

    /// The names of the webhook's match conditions.
    #[must_use]
    pub fn match_conditions(&self) -> &[String] {
        &self.match_conditions
    }

    /// Whether the webhook adds Istio's sidecar to pods, by what is known of it: its name, its
    /// Service, its path.
    #[must_use]
    pub fn is_injector(&self) -> bool {
        let by_target = match &self.target {
            Target::Service { name, path, .. } => {
                name == "istiod" || name.starts_with("istiod-") || is_inject_path(path)
            }
            Target::Url(url) => {
                let path = url.splitn(4, '/').nth(3).unwrap_or_default();
                is_inject_path(&format!("/{path}"))
            }
        };
        self.is_for_new_pods && (by_target || self.name.ends_with(".istio.io"))
    }
}

fn is_inject_path(path: &str) -> bool {
    path == "/inject" || path.starts_with("/inject/")
}

impl Configuration {
    /// Reads the object of the API.
    pub fn parse(object: &Value) -> Result<Self, Invalid> {
        parse::configuration(object)
    }

    /// The revision of the injector: the configuration's label, or the one that its selectors name.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        let named = self.selectors().find_map(|one| one.values(REVISION).next());
        self.revision.as_deref().or(named)
    }

    /// Whether a webhook of this configuration adds Istio's sidecar to pods.
    #[must_use]
    pub fn is_injector(&self) -> bool {
        self.webhooks.iter().any(Webhook::is_injector)
    }

    /// Whether the API server calls one of the webhooks for this pod, or why none.
    #[must_use]
    pub fn called(&self, creation: &Creation<'_>) -> Called<'_> {
        let by = |wanted: fn(&Call<'_>) -> bool| {
            self.webhooks
                .iter()
                .find(|webhook| wanted(&webhook.call(creation)))
        };
        if let Some(webhook) = by(|call| matches!(call, Call::Yes)) {
            return Called::Yes(webhook);
        }
        match by(|call| matches!(call, Call::IfConditions(_))) {
            Some(webhook) => Called::IfConditions(webhook),
            None => Called::No(self.reason(creation)),
        }
    }

    /// Why no webhook selects this pod: the label whose change would make one select it.
    fn reason(&self, creation: &Creation<'_>) -> Reason {
        let inject = creation.pod_labels.get(INJECT).copied();
        if inject == Some("false") && self.would_select(creation, Place::Pod, INJECT) {
            return Reason::LabelFalse;
        }
        match creation.namespace_labels.get(INJECTION).copied() {
            Some("enabled") if !self.lists(INJECTION, "enabled") && self.knows(REVISION) => {
                return Reason::OtherRevision;
            }
            Some(value) if value != "enabled" && self.knows(INJECTION) => {
                return Reason::NamespaceDisabled;
            }
            _ => {}
        }
        if self.is_of_other_revision(creation) {
            return Reason::OtherRevision;
        }
        if self.would_select(creation, Place::Namespace, NAMESPACE_NAME) {
            return if SYSTEM_NAMESPACES.contains(&creation.namespace) {
                Reason::SystemNamespace
            } else {
                Reason::NamespaceExcluded
            };
        }
        if inject == Some("false") && self.knows(INJECT) {
            return Reason::LabelFalse;
        }
        let labels = [INJECTION, REVISION, INJECT];
        if labels.into_iter().any(|key| self.knows(key)) {
            Reason::NoLabel
        } else {
            Reason::NotSelected
        }
    }

    /// Whether another value of this label, or its absence, would make a webhook select the pod.
    fn would_select(&self, creation: &Creation<'_>, place: Place, key: &str) -> bool {
        let listed = self.selectors().flat_map(|selector| selector.values(key));
        let mut values = [None, Some(UNLISTED)].into_iter().chain(listed.map(Some));
        values.any(|value| {
            let changed = creation.with(place, key, value);
            self.webhooks
                .iter()
                .any(|webhook| webhook.selects(&changed))
        })
    }

    /// Whether the namespace's label, or else the pod's, names a revision that no selector lists.
    fn is_of_other_revision(&self, creation: &Creation<'_>) -> bool {
        let labels = [&creation.namespace_labels, &creation.pod_labels];
        let revision = labels.into_iter().find_map(|labels| labels.get(REVISION));
        revision.is_some_and(|revision| self.knows(REVISION) && !self.lists(REVISION, revision))
    }

    fn lists(&self, key: &str, value: &str) -> bool {
        let mut listed = self.selectors().flat_map(|selector| selector.values(key));
        listed.any(|listed| listed == value)
    }

    fn knows(&self, key: &str) -> bool {
        self.selectors().any(|selector| selector.mentions(key))
    }

    /// The selectors of all webhooks that are called for pods.
    fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let webhooks = self
            .webhooks
            .iter()
            .filter(|webhook| webhook.is_for_new_pods);
        webhooks.flat_map(|webhook| [&webhook.namespace_selector, &webhook.object_selector])
    }
}

#[cfg(test)]
mod tests;
