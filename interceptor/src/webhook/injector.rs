//! The injection configuration in use.

use std::sync::{Arc, PoisonError, RwLock};

use interceptor_injection::{
    Config, Outcome, Subject, inject, istio::MemoCounts, refusal::Refusal,
};
use serde_json::Value;

/// A configuration and its number.
#[derive(Debug)]
pub(super) struct Current {
    /// Counts the configurations since the start, from 1.
    generation: u64,
    revision: String,
    config: Config,
}

impl Current {
    /// Decides about a pod, and injects it.
    pub(super) fn inject(&self, pod: &Value, subject: &Subject) -> Result<Outcome, Refusal> {
        inject(pod, subject, &self.config)
    }

    /// Its number.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// How often a rendered template was found in the memo.
    pub(super) fn memo_counts(&self) -> MemoCounts {
        self.config.sidecar.memo_counts()
    }

    /// Audit annotations: which configuration decided.
    pub(super) fn audit(&self) -> [(&'static str, String); 2] {
        [
            ("revision", self.revision.clone()),
            ("config", self.generation.to_string()),
        ]
    }
}

/// The configuration in use, which can be replaced while reviews are processed. Copies share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Injector(Arc<RwLock<Option<Arc<Current>>>>);

impl Injector {
    /// Uses `config` for the reviews that start from now on. Returns its number.
    pub(super) fn replace(&self, revision: &str, config: Config) -> u64 {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let last = current.as_ref().map_or(0, |current| current.generation);
        let generation = last + 1;
        *current = Some(Arc::new(Current {
            generation,
            revision: revision.to_owned(),
            config,
        }));
        generation
    }

    /// The configuration, if one has been loaded.
    pub(super) fn current(&self) -> Option<Arc<Current>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}
