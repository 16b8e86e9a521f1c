//! The annotation `proxy.istio.io/config`: Istio's `ProxyConfig`, in YAML.
//!
//! istio-cni does not read this annotation: the injector copies the interception mode into a separate
//! annotation, and the metadata into the variables of istio-proxy. Both have precedence here; the
//! `ProxyConfig` is for pods without them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pod::Pod;

const ANNOTATION: &str = "proxy.istio.io/config";

/// The fields that affect interception.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// `interceptionMode`
    pub interception_mode: Option<String>,
    /// `proxyMetadata`
    pub proxy_metadata: BTreeMap<String, String>,
}

impl ProxyConfig {
    /// The `ProxyConfig` of `pod`. The caller captures the pod even if this fails, as istio-cni would:
    /// the injector refuses invalid ones, so the annotation was changed after the injection.
    pub fn of(pod: &Pod) -> Result<Self, String> {
        let Some(text) = pod.annotations.get(ANNOTATION) else {
            return Ok(Self::default());
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let error = error.to_string();
            let first = error.lines().next().unwrap_or_default();
            format!("annotation {ANNOTATION} is ignored: it is not a valid ProxyConfig: {first}")
        })
    }
}
