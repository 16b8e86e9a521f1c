//! The `MutatingWebhookConfiguration`: its `caBundle` is kept equal to the CA of the certificate.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::api_server::described;

/// Owner of the field in `managedFields`.
const FIELD_MANAGER: &str = "interceptor-webhook";

/// The configuration by which the API server calls this webhook.
pub(super) struct Registration {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
}

impl Registration {
    pub(super) fn new(client: Client, name: &str) -> Self {
        Self {
            api: Api::all(client),
            name: name.to_owned(),
        }
    }

    /// Sets `caBundle` to `bundle` (PEM) in each webhook that has another one. Returns whether it
    /// had to.
    pub(super) async fn apply(&self, bundle: &str) -> Result<bool> {
        let name = &self.name;
        let found = self.api.get(name).await.map_err(described);
        let found =
            found.with_context(|| format!("cannot get the MutatingWebhookConfiguration {name}"))?;
        let webhooks = found.webhooks.unwrap_or_default();
        let is_set = |expected: &str| {
            let bundles = webhooks
                .iter()
                .map(|webhook| &webhook.client_config.ca_bundle);
            bundles
                .map(|bundle| bundle.as_ref().map(|bytes| bytes.0.as_slice()))
                .all(|bundle| bundle == Some(expected.as_bytes()))
        };
        if is_set(bundle) {
            return Ok(false);
        }
        let names: Vec<_> = webhooks
            .iter()
            .map(|webhook| webhook.name.as_str())
            .collect();
        let patch = apply_patch(name, &names, bundle);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.api
            .patch(name, &parameters, &Patch::Apply(&patch))
            .await
            .map_err(described)
            .with_context(|| {
                format!("cannot set caBundle in the MutatingWebhookConfiguration {name}")
            })?;
        Ok(true)
    }
}

/// Only what this process owns: the list of webhooks is merged by name.
fn apply_patch(name: &str, webhooks: &[&str], bundle: &str) -> Value {
    let bundle = STANDARD.encode(bundle);
    let webhooks: Vec<_> = webhooks
        .iter()
        .map(|webhook| json!({"name": webhook, "clientConfig": {"caBundle": bundle}}))
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": webhooks,
    })
}
