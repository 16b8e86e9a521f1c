//! Whether the agent is ready, and if not, why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::metrics::Metrics;

/// A condition of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// No other agent serves the node.
    Alone,
    /// The pod list was received.
    Pods,
    /// The plugin is in the network configuration.
    Cni,
}

/// The unmet conditions, with their reasons. Clones share them.
#[derive(Clone)]
pub struct Health {
    problems: Arc<Mutex<BTreeMap<Part, String>>>,
    ready: Arc<watch::Sender<bool>>,
    metrics: Metrics,
}

impl Health {
    /// The conditions in `waiting_for` are unmet.
    #[must_use]
    pub fn new(metrics: Metrics, waiting_for: &[(Part, &str)]) -> Self {
        let problems = waiting_for
            .iter()
            .map(|(part, why)| (*part, (*why).to_owned()));
        Self {
            problems: Arc::new(Mutex::new(problems.collect())),
            ready: Arc::new(watch::Sender::new(waiting_for.is_empty())),
            metrics,
        }
    }

    /// Records that a condition is met.
    pub fn resolve(&self, part: Part) {
        self.change(|problems| {
            problems.remove(&part);
        });
    }

    /// Records why a condition is not met.
    pub fn report(&self, part: Part, why: impl Into<String>) {
        self.change(|problems| {
            problems.insert(part, why.into());
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Part, String>)) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut problems);
        let ready = problems.is_empty();
        self.metrics.ready(ready);
        self.ready.send_if_modified(|before| {
            let changed = *before != ready;
            *before = ready;
            changed
        });
    }

    /// The reasons of the unmet conditions.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.values().cloned().collect()
    }

    /// Waits until all conditions are met.
    pub async fn until_ready(&self) {
        let mut ready = self.ready.subscribe();
        // Fails only without the sender, which `self` keeps.
        let _ready = ready.wait_for(|ready| *ready).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_ready_when_all_conditions_are_met() {
        let metrics = Metrics::default();
        let health = Health::new(metrics.clone(), &[(Part::Pods, "no list of pods yet")]);
        assert_eq!(health.problems(), ["no list of pods yet"]);
        health.resolve(Part::Pods);
        assert!(health.problems().is_empty());
        assert!(
            metrics
                .text()
                .unwrap()
                .contains("interceptor_cni_install_ready 1")
        );
        health.report(Part::Cni, "another plugin rewrites the list");
        assert_eq!(health.problems(), ["another plugin rewrites the list"]);
        assert!(
            metrics
                .text()
                .unwrap()
                .contains("interceptor_cni_install_ready 0")
        );
    }
}
