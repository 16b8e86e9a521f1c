//! Where a part of the configuration is.

use std::{fmt, path::PathBuf};

use interceptor_injection::decision::webhooks::DEFAULT_REVISION;

/// Where a text is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    File(PathBuf),
    ConfigMap(ConfigMapName, &'static str),
}

/// A `ConfigMap`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConfigMapName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ConfigMapName {
    /// The one that Istio names `name`. Istiods with a revision have `ConfigMaps` of their own.
    pub(super) fn of_istio(namespace: &str, name: &str, revision: &str) -> Self {
        let name = match revision {
            "" | DEFAULT_REVISION => name.to_owned(),
            revision => format!("{name}-{revision}"),
        };
        Self {
            namespace: namespace.to_owned(),
            name,
        }
    }

    /// The same with another name, if one is given.
    pub(super) fn renamed(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => Self {
                name: name.to_owned(),
                ..self
            },
            None => self,
        }
    }

    /// The one with Istio's template, its values and its rules.
    pub(crate) fn of_injector(namespace: &str, revision: &str) -> Self {
        Self::of_istio(namespace, "istio-sidecar-injector", revision)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::ConfigMap(name, key) => write!(formatter, "{name}, key {key}"),
        }
    }
}

impl fmt::Display for ConfigMapName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConfigMap {}/{}", self.namespace, self.name)
    }
}
