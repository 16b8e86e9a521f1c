//! Where a part of the configuration is.

use std::{fmt, path::PathBuf};

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
