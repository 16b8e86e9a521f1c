//! Pods that two injectors take.

use std::collections::BTreeMap;

use super::{super::selector::Selector, Configuration, Creation, NAMESPACE_NAME, Target, Webhook};

/// Configurations of other injectors that can select a pod of ours.
#[derive(Clone, Debug, Default)]
pub struct OtherInjectors {
    ours: Vec<Webhook>,
    others: Vec<Configuration>,
}

/// Two webhooks that select the same pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap<'a> {
    /// Our webhook.
    pub ours: &'a str,
    /// The configuration of the other injector.
    pub configuration: &'a str,
    /// Its webhook.
    pub webhook: &'a str,
}

impl OtherInjectors {
    /// Compares the configuration of this name with all `configurations`. Webhooks that call our
    /// own program are not another injector.
    #[must_use]
    pub fn of(name: &str, configurations: Vec<Configuration>) -> Self {
        let (ours, others): (Vec<_>, Vec<_>) = configurations
            .into_iter()
            .partition(|configuration| configuration.name == name);
        let ours: Vec<_> = ours.into_iter().flat_map(|one| one.webhooks).collect();
        let is_other = |webhook: &Webhook| {
            let is_own = ours
                .iter()
                .any(|own| own.target.is_same_program(&webhook.target));
            webhook.is_injector() && !is_own && ours.iter().any(|own| own.overlaps(webhook))
        };
        let others = others.into_iter().filter_map(|mut configuration| {
            configuration.webhooks.retain(is_other);
            (!configuration.webhooks.is_empty()).then_some(configuration)
        });
        Self {
            others: others.collect(),
            ours,
        }
    }

    /// One overlap of each other configuration.
    pub fn overlaps(&self) -> impl Iterator<Item = Overlap<'_>> {
        self.others.iter().filter_map(|configuration| {
            configuration.webhooks.iter().find_map(|webhook| {
                let ours = self.ours.iter().find(|own| own.overlaps(webhook))?;
                Some(Overlap {
                    ours: &ours.name,
                    configuration: &configuration.name,
                    webhook: &webhook.name,
                })
            })
        })
    }

    /// The configurations that certainly select a pod for which one of our webhooks was called. The
    /// labels of its namespace are unknown, except for what the selectors of ours imply.
    pub fn also_called<'a>(
        &'a self,
        namespace: &'a str,
        pod_labels: &'a BTreeMap<&'a str, &'a str>,
    ) -> impl Iterator<Item = &'a str> {
        let creation = Creation::new(namespace, BTreeMap::new(), pod_labels.clone());
        let callers: Vec<_> = self
            .ours
            .iter()
            .filter(|own| own.can_be_called(&creation))
            .collect();
        let others = self.others.iter().filter(move |other| {
            !callers.is_empty()
                && callers.iter().all(|own| {
                    let mut webhooks = other.webhooks.iter();
                    webhooks.any(|webhook| webhook.is_called_with(own, &creation))
                })
        });
        others.map(|other| &*other.name)
    }
}

impl Webhook {
    /// Whether there are pods that both select.
    fn overlaps(&self, other: &Self) -> bool {
        self.is_for_new_pods
            && other.is_for_new_pods
            && self.namespace_selector.overlaps(&other.namespace_selector)
            && self.object_selector.overlaps(&other.object_selector)
    }

    /// Whether the webhook selects this pod in some namespace of this name.
    fn can_be_called(&self, creation: &Creation<'_>) -> bool {
        let namespace = self.namespaces_named(creation.namespace);
        self.is_for_new_pods
            && namespace.overlaps(&namespace)
            && self.object_selector.matches(&creation.pod_labels)
    }

    /// Whether the webhook is called for this pod in every namespace of this name in which `own` is
    /// called.
    fn is_called_with(&self, own: &Self, creation: &Creation<'_>) -> bool {
        let namespace = own.namespaces_named(creation.namespace);
        self.match_conditions.is_empty()
            && self.object_selector.matches(&creation.pod_labels)
            && namespace.implies(&self.namespace_selector)
    }

    fn namespaces_named(&self, name: &str) -> Selector {
        let named = Selector::equal(NAMESPACE_NAME, name);
        self.namespace_selector.with(&named)
    }
}

impl Target {
    /// The path of a Service's URL only passes settings.
    fn is_same_program(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Service {
                    namespace, name, ..
                },
                Self::Service {
                    namespace: other_namespace,
                    name: other_name,
                    ..
                },
            ) => (namespace, name) == (other_namespace, other_name),
            _ => self == other,
        }
    }
}
