//! The annotation `proxy.istio.io/config`: a `ProxyConfig` of Istio's, in YAML.
//!
//! istio-cni does not read it. What of it matters reaches istio-cni by the injector, which puts the
//! interception mode into an annotation of its own and the metadata into the variables of
//! istio-proxy. It is read here for pods where neither was done, and what they say wins over it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pod::Pod;

const ANNOTATION: &str = "proxy.istio.io/config";

/// What of it has to do with interception.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// `interceptionMode`
    pub interception_mode: Option<String>,
    /// `proxyMetadata`
    pub proxy_metadata: BTreeMap<String, String>,
}

impl ProxyConfig {
    /// What `pod` says. One that cannot be read is no reason to keep a pod from running that
    /// istio-cni would let run: the injector refuses such pods, so it was changed since.
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
            format!("annotation {ANNOTATION} is not read, for it is no ProxyConfig: {first}")
        })
    }
}
