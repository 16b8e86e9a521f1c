//! Mutating admission webhooks: which of them are called for a new pod, and what their responses
//! change (`k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`).

mod call;
mod label_selector;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    patching::{self, Kind},
    resource::Target,
    state::State,
    status::Failure,
};

const DEFAULT_TIMEOUT_SECONDS: u64 = 10;

/// Calls the webhooks for `pod`, which is to be created, and returns what they make of it.
pub(super) async fn admit(
    state: &Arc<State>,
    target: &Target<'_>,
    pod: &Value,
) -> Result<Value, Failure> {
    let namespace = target.namespace.unwrap_or_default();
    let webhooks = webhooks(state, namespace, pod);
    let mut pod = pod.clone();
    // The object as each webhook has left it.
    let mut seen = Vec::new();
    for webhook in &webhooks {
        pod = invoke(state, webhook, namespace, pod).await?;
        seen.push(pod.clone());
    }
    for (webhook, left) in webhooks.iter().zip(&seen) {
        if webhook["reinvocationPolicy"] == "IfNeeded" && *left != pod {
            pod = invoke(state, webhook, namespace, pod).await?;
        }
    }
    Ok(pod)
}

/// The webhooks whose selectors match, in the order of the names of their configurations.
fn webhooks(state: &State, namespace: &str, pod: &Value) -> Vec<Value> {
    let inner = state.lock();
    let object = inner.store.get(resource("v1", "Namespace"), "", namespace);
    let mut labels = object.map_or(Value::Null, |object| object["metadata"]["labels"].clone());
    labels["kubernetes.io/metadata.name"] = json!(namespace);
    let configurations = inner.store.all(resource(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
    ));
    configurations
        .filter_map(|configuration| configuration["webhooks"].as_array())
        .flatten()
        .filter(|webhook| {
            calls_for_pods(webhook)
                && label_selector::matches(&webhook["namespaceSelector"], &labels)
                && label_selector::matches(&webhook["objectSelector"], &pod["metadata"]["labels"])
        })
        .cloned()
        .collect()
}

fn resource(api_version: &str, kind: &str) -> &'static super::Resource {
    super::Resource::of(api_version, kind).expect("a resource that is served")
}

fn calls_for_pods(webhook: &Value) -> bool {
    let has = |list: &Value, item: &str| {
        list.as_array()
            .is_some_and(|list| list.iter().any(|found| found == item || found == "*"))
    };
    let rules = webhook["rules"].as_array().into_iter().flatten();
    let mut rules = rules.filter(|rule| has(&rule["operations"], "CREATE"));
    rules.any(|rule| has(&rule["resources"], "pods"))
}

/// Calls one webhook, by its failure policy.
async fn invoke(
    state: &Arc<State>,
    webhook: &Value,
    namespace: &str,
    pod: Value,
) -> Result<Value, Failure> {
    let name = webhook["name"].as_str().unwrap_or_default();
    let seconds = webhook["timeoutSeconds"].as_u64();
    let timeout = Duration::from_secs(seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS));
    let call = call::call(state, &webhook["clientConfig"], namespace, &pod);
    let response = match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => response,
        failed => {
            let problem = match failed {
                Ok(Err(problem)) => format!("{problem:#}"),
                _ => "context deadline exceeded".to_owned(),
            };
            return if webhook["failurePolicy"] == "Ignore" {
                Ok(pod)
            } else {
                Err(Failure::internal(format!(
                    "failed calling webhook {name:?}: {problem}"
                )))
            };
        }
    };
    record(state, name, &response);
    if response["allowed"] != true {
        let message = response["status"]["message"].as_str().unwrap_or_default();
        return Err(Failure::denied(format!(
            "admission webhook {name:?} denied the request: {message}"
        )));
    }
    call::patch(&response)
        .map_err(|problem| Failure::internal(format!("{problem:#}")))?
        .map_or(Ok(pod.clone()), |patch| {
            patching::patched(Kind::Json, &pod, &patch)
        })
}

/// Keeps the audit annotations and warnings, as the audit log and the client would get them.
fn record(state: &State, name: &str, response: &Value) {
    let annotations = response["auditAnnotations"].as_object();
    let annotations: Map<_, _> = annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| (format!("{name}/{key}"), value.clone()))
        .collect();
    let admission = json!({"annotations": annotations, "warnings": response["warnings"]});
    state.lock().admissions.push(admission);
}
