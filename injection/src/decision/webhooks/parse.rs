//! The objects of the API. Fields that do not matter here are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Configuration, REVISION, Target, Webhook};
use crate::decision::selector::{self, Selector};

/// Why a `MutatingWebhookConfiguration` cannot be evaluated. The API server accepts no such object
/// of the versions that are known here.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not the object of the API.
    #[error("not a MutatingWebhookConfiguration: {0}")]
    Object(#[from] serde_json::Error),
    /// A selector of a webhook is not one of the API.
    #[error("webhook {webhook}: {field}: {problem}")]
    Selector {
        /// The webhook's name.
        webhook: String,
        /// `namespaceSelector` or `objectSelector`
        field: &'static str,
        /// What is wrong.
        problem: selector::Invalid,
    },
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    webhooks: Option<Vec<Raw>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    creation_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    name: String,
    client_config: ClientConfig,
    failure_policy: Option<String>,
    #[serde(default)]
    namespace_selector: Value,
    #[serde(default)]
    object_selector: Value,
    rules: Option<Vec<Rule>>,
    match_conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct ClientConfig {
    service: Option<Service>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Service {
    namespace: String,
    name: String,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Rule {
    operations: Option<Vec<String>>,
    api_groups: Option<Vec<String>>,
    api_versions: Option<Vec<String>>,
    resources: Option<Vec<String>>,
    scope: Option<String>,
}

impl Rule {
    /// Whether it contains `CREATE` of `v1` `pods`, which are namespaced.
    fn creates_pods(&self) -> bool {
        let has = |list: &Option<Vec<String>>, item: &str| {
            let mut listed = list.iter().flatten();
            listed.any(|one| one == "*" || one == item)
        };
        let resources = self.resources.iter().flatten();
        let mut resources =
            resources.map(|resource| resource.split_once('/').unwrap_or((resource, "")));
        has(&self.operations, "CREATE")
            && has(&self.api_groups, "")
            && has(&self.api_versions, "v1")
            && self.scope.as_deref() != Some("Cluster")
            // No subresource: pods, *, pods/* and */*, but not pods/exec.
            && resources.any(|(name, part)| ["*", "pods"].contains(&name) && ["*", ""].contains(&part))
    }
}

pub(super) fn configuration(object: &Value) -> Result<Configuration, Invalid> {
    let object = Object::deserialize(object)?;
    let webhooks = object.webhooks.into_iter().flatten().map(webhook);
    let mut labels = object.metadata.labels.unwrap_or_default();
    Ok(Configuration {
        name: object.metadata.name,
        created: object.metadata.creation_timestamp,
        revision: labels.remove(REVISION),
        webhooks: webhooks.collect::<Result<_, _>>()?,
    })
}

fn webhook(raw: Raw) -> Result<Webhook, Invalid> {
    let selector = |field, object: &Value| {
        Selector::parse(object).map_err(|problem| Invalid::Selector {
            webhook: raw.name.clone(),
            field,
            problem,
        })
    };
    let conditions = raw.match_conditions.into_iter().flatten();
    Ok(Webhook {
        namespace_selector: selector("namespaceSelector", &raw.namespace_selector)?,
        object_selector: selector("objectSelector", &raw.object_selector)?,
        target: target(raw.client_config),
        ignores_failures: raw.failure_policy.as_deref() == Some("Ignore"),
        is_for_new_pods: raw.rules.iter().flatten().any(Rule::creates_pods),
        match_conditions: conditions.map(|condition| condition.name).collect(),
        name: raw.name,
    })
}

/// The API requires one of both.
fn target(config: ClientConfig) -> Target {
    match config.service {
        Some(service) => Target::Service {
            namespace: service.namespace,
            name: service.name,
            path: service.path.unwrap_or_default(),
        },
        None => Target::Url(config.url.unwrap_or_default()),
    }
}
