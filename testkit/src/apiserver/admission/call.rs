//! A call of a webhook: an `AdmissionReview` over TLS, as the API server sends it.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::super::state::State;
use crate::https::Server;

/// Sends a review of `pod`, and returns the `response` of the review that comes back.
pub(super) async fn call(
    state: &Arc<State>,
    client_config: &Value,
    namespace: &str,
    pod: &Value,
) -> Result<Value> {
    let service = &client_config["service"];
    let text = |field: &str| service[field].as_str().unwrap_or_default();
    let (name, service_namespace) = (text("name"), text("namespace"));
    let endpoint = state.lock().next_endpoint(service_namespace, name);
    let bundle = client_config["caBundle"].as_str().unwrap_or_default();
    let server = Server {
        address: endpoint
            .with_context(|| format!("no endpoints available for service {name:?}"))?,
        name: &format!("{name}.{service_namespace}.svc"),
        bundle: &STANDARD.decode(bundle)?,
    };
    let uid = format!("review-{}", state.lock().admissions.len());
    let path = format!("{}?timeout=5s", service["path"].as_str().unwrap_or("/"));
    let body = review(&uid, namespace, pod).to_string();
    let (status, body) = server.post(&path, "application/json", body).await?;
    ensure!(
        status.is_success(),
        "status {status}: {}",
        String::from_utf8_lossy(&body)
    );
    let review: Value = serde_json::from_slice(&body)?;
    ensure!(
        review["response"]["uid"] == uid.as_str(),
        "expected response.uid={uid:?}, got {}",
        review["response"]["uid"]
    );
    Ok(review["response"].clone())
}

fn review(uid: &str, namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "object": pod,
            "oldObject": null,
            "dryRun": false,
        },
    })
}

/// The JSON Patch in a response.
pub(super) fn patch(response: &Value) -> Result<Option<Value>> {
    let Some(patch) = response["patch"].as_str() else {
        return Ok(None);
    };
    if response["patchType"] != "JSONPatch" {
        bail!("invalid patchType {}", response["patchType"]);
    }
    Ok(Some(serde_json::from_slice(&STANDARD.decode(patch)?)?))
}
