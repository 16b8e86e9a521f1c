//! The selectors of Istio's webhooks, which ours have too: `rev.namespace`, `rev.object`,
//! `namespace`, `object`, `auto`.

use serde_json::{Value, json};

use super::{
    super::selector::Selector, Configuration, INJECT, INJECTION, NAMESPACE_NAME, REVISION,
    SYSTEM_NAMESPACES, Target, Webhook,
};

/// The revision of an istiod that has no name.
pub const DEFAULT_REVISION: &str = "default";

/// One injector's webhooks.
#[derive(Clone, Debug)]
pub struct Standard<'a> {
    /// Their revision; [`DEFAULT_REVISION`] also serves the labels without a revision.
    pub revision: &'a str,
    /// Whether namespaces without a label are served (`enableNamespacesByDefault`).
    pub by_default: bool,
}

impl Standard<'_> {
    /// The configuration with these webhooks, with the names of `deploy/webhook`.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        let revision = match self.revision {
            "" => DEFAULT_REVISION,
            revision => revision,
        };
        let of_revision = requirement(REVISION, "In", &[revision]);
        let not_false = requirement(INJECT, "NotIn", &["false"]);
        let neither = [absent(INJECTION), absent(REVISION)];
        let mut webhooks = vec![
            webhook(
                "rev.namespace",
                &[of_revision.clone(), absent(INJECTION)],
                std::slice::from_ref(&not_false),
            ),
            webhook("rev.object", &neither, &[not_false.clone(), of_revision]),
        ];
        if revision == DEFAULT_REVISION {
            let enabled = requirement(INJECTION, "In", &["enabled"]);
            let wanted = requirement(INJECT, "In", &["true"]);
            webhooks.push(webhook("namespace", &[enabled], &[not_false]));
            webhooks.push(webhook("object", &neither, &[wanted, absent(REVISION)]));
        }
        if revision == DEFAULT_REVISION && self.by_default {
            let [injection, revision] = neither;
            let not_system = requirement(NAMESPACE_NAME, "NotIn", &SYSTEM_NAMESPACES);
            webhooks.push(webhook(
                "auto",
                &[injection, revision, not_system],
                &[absent(INJECT), absent(REVISION)],
            ));
        }
        Configuration {
            name: "interceptor-injector".to_owned(),
            created: None,
            revision: Some(revision.to_owned()),
            webhooks,
        }
    }
}

fn absent(key: &str) -> Value {
    requirement(key, "DoesNotExist", &[])
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": operator, "values": values})
}

fn webhook(name: &str, namespace: &[Value], pod: &[Value]) -> Webhook {
    let selector = |expressions| {
        let object = json!({"matchExpressions": expressions});
        Selector::parse(&object).expect("selectors of this file, which are valid")
    };
    Webhook {
        name: format!("{name}.injector.interceptor.dev"),
        target: Target::Url("https://localhost/inject".to_owned()),
        ignores_failures: false,
        namespace_selector: selector(namespace),
        object_selector: selector(pod),
        is_for_new_pods: true,
        match_conditions: Vec::new(),
    }
}
