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
#[derive(Clone, Debug)]
pub(super) struct Injector(Arc<RwLock<Arc<Current>>>);

impl Injector {
    pub(super) fn new(revision: &str, config: Config) -> Self {
        let current = Current {
            generation: 1,
            revision: revision.to_owned(),
            config,
        };
        Self(Arc::new(RwLock::new(Arc::new(current))))
    }

    pub(super) fn current(&self) -> Arc<Current> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}
