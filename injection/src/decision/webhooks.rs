//! Whether the API server calls the injector for a pod: the selectors of Istio's webhooks
//! (`rev.namespace`, `rev.object`, `namespace`, `object`, `auto`).

use std::collections::BTreeMap;

use super::{INJECT, Reason, SYSTEM_NAMESPACES};

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";

/// The revision of an istiod that has no name.
pub const DEFAULT_REVISION: &str = "default";

/// One injector's webhooks.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Their revision; [`DEFAULT_REVISION`] also serves the labels without a revision.
    pub revision: String,
    /// Whether namespaces without a label are served (`enableNamespacesByDefault`).
    pub by_default: bool,
}

impl Webhooks {
    /// Whether one of the webhooks is called for a pod with these labels, or why none is.
    pub fn call(
        &self,
        namespace: &str,
        namespace_labels: &BTreeMap<&str, &str>,
        pod_labels: &BTreeMap<&str, &str>,
    ) -> Result<(), Reason> {
        let default = [DEFAULT_REVISION, ""].contains(&self.revision.as_str());
        let inject = pod_labels.get(INJECT).copied();
        if let Some(injection) = namespace_labels.get(INJECTION) {
            return match (*injection, inject) {
                ("enabled", Some("false")) => Err(Reason::LabelFalse),
                ("enabled", _) if default => Ok(()),
                ("enabled", _) => Err(Reason::OtherRevision),
                _ => Err(Reason::NamespaceDisabled),
            };
        }
        let revision = namespace_labels
            .get(REVISION)
            .or_else(|| pod_labels.get(REVISION));
        if revision.is_some_and(|revision| *revision != self.name()) {
            return Err(Reason::OtherRevision);
        }
        match inject {
            Some("false") => Err(Reason::LabelFalse),
            _ if revision.is_some() => Ok(()),
            Some("true") if default => Ok(()),
            None if default && self.by_default => {
                if SYSTEM_NAMESPACES.contains(&namespace) {
                    return Err(Reason::SystemNamespace);
                }
                Ok(())
            }
            _ => Err(Reason::NoLabel),
        }
    }

    fn name(&self) -> &str {
        if self.revision.is_empty() {
            DEFAULT_REVISION
        } else {
            &self.revision
        }
    }
}
