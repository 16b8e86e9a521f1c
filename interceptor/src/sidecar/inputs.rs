//! What files and cluster contain at one time.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{
    native::Kubelets,
    origin::{ConfigMapName, Origin},
};

/// What was read, or why it could not be.
pub(super) type Reading<T> = Result<T, String>;

/// What files and cluster contain at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(super) texts: BTreeMap<Origin, Reading<String>>,
    /// UIDs of `ConfigMaps`.
    pub(super) uids: BTreeMap<ConfigMapName, String>,
    /// The kubelets of the cluster's nodes. `None` without a cluster.
    pub(super) kubelets: Option<Reading<Kubelets>>,
    /// The cluster's resources of kind `ProxyConfig`. `None` without a cluster.
    pub(super) proxy_configs: Option<Reading<Vec<Value>>>,
}

impl Inputs {
    /// The text at `origin`.
    pub(super) fn text(&self, origin: &Origin) -> Reading<&str> {
        match self.texts.get(origin) {
            Some(Ok(text)) => Ok(text),
            Some(Err(problem)) => Err(problem.clone()),
            None => Err("it has not been read yet".to_owned()),
        }
    }

    /// The UID of a `ConfigMap` that exists.
    pub(crate) fn uid(&self, name: &ConfigMapName) -> Option<&str> {
        self.uids.get(name).map(String::as_str)
    }

    /// Sets why a `ConfigMap` cannot be read.
    pub(super) fn set_unreadable(
        &mut self,
        name: &ConfigMapName,
        problem: &str,
        origins: &[Origin],
    ) {
        for origin in origins {
            if matches!(origin, Origin::ConfigMap(of, _) if of == name) {
                self.texts.insert(origin.clone(), Err(problem.to_owned()));
            }
        }
    }

    /// Updates the texts of all `origins` that are in the `ConfigMap` of this name.
    pub(super) fn set_config_map(
        &mut self,
        name: &ConfigMapName,
        found: Option<&ConfigMap>,
        origins: &[Origin],
    ) {
        match found.and_then(|found| found.metadata.uid.clone()) {
            Some(uid) => self.uids.insert(name.clone(), uid),
            None => self.uids.remove(name),
        };
        for origin in origins {
            if let Origin::ConfigMap(of, key) = origin
                && of == name
            {
                self.texts.insert(origin.clone(), value(found, key));
            }
        }
    }
}

fn value(found: Option<&ConfigMap>, key: &str) -> Reading<String> {
    let Some(found) = found else {
        return Err("the ConfigMap does not exist".to_owned());
    };
    let text = found.data.as_ref().and_then(|data| data.get(key));
    text.cloned()
        .ok_or_else(|| "the ConfigMap has no such key".to_owned())
}

/// The text of a file.
pub(super) async fn file(path: &Path) -> Reading<String> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| format!("cannot be read: {error}"))
}
