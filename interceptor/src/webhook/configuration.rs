//! Keeps the configuration equal to what files and cluster contain.

use futures_util::{Stream, StreamExt as _, pin_mut};
use interceptor_injection::Config;
use kube::Client;
use tracing::{error, info, warn};

use super::{
    events::{self, Cause},
    health::{Health, Part},
    injector::Injector,
    metrics::Metrics,
};
use crate::sidecar::{Configured, Inputs, Origin, Plan, Problem};

/// Keeps the configuration equal to what files and cluster contain. One with an error is not used:
/// the last one without stays in use.
pub(super) struct Configuration {
    pub(super) plan: Plan,
    /// The injector's, for audit annotations.
    pub(super) revision: String,
    pub(super) injector: Injector,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    /// For Events.
    pub(super) client: Option<Client>,
}

impl Configuration {
    pub(super) async fn run(&self, inputs: impl Stream<Item = Inputs>) {
        pin_mut!(inputs);
        let mut last = None;
        let mut warnings = Vec::new();
        while let Some(inputs) = inputs.next().await {
            match self.configure(&inputs) {
                Ok(configured) => {
                    // While nodes differ, each new node is a reason for another configuration.
                    log_new(&configured.warnings, &warnings);
                    self.replace(configured.config);
                    warnings = configured.warnings;
                    last = None;
                }
                Err(problem) if last.as_ref() == Some(&problem) => {}
                Err(problem) => {
                    self.reject(&problem, &inputs);
                    last = Some(problem);
                }
            }
        }
    }

    fn configure(&self, inputs: &Inputs) -> Result<Configured, Problem> {
        let configured = self.plan.configure(inputs)?;
        self.plan.try_out(&configured.config)?;
        Ok(configured)
    }

    fn replace(&self, config: Config) {
        let generation = self.injector.replace(&self.revision, config);
        info!("configuration {generation} is in use");
        self.metrics.configured(generation);
        self.health.set(Part::Configuration, None);
    }

    fn reject(&self, problem: &Problem, inputs: &Inputs) {
        self.metrics.misconfigured();
        let current = self.injector.current();
        let consequence = match &current {
            Some(current) => format!("configuration {} stays in use", current.generation()),
            None => "no pod can be injected".to_owned(),
        };
        error!("invalid configuration, {consequence}: {problem}");
        if current.is_none() {
            let problem = format!("invalid configuration: {problem}");
            self.health.set(Part::Configuration, Some(problem));
        }
        self.publish(problem, &consequence, inputs);
    }

    /// Publishes an Event about the `ConfigMap` with the problem.
    fn publish(&self, problem: &Problem, consequence: &str, inputs: &Inputs) {
        let (Some(client), Some(Origin::ConfigMap(name, key))) = (&self.client, &problem.origin)
        else {
            return;
        };
        let Some(uid) = inputs.uid(name) else {
            return;
        };
        let about = events::object("ConfigMap", &name.namespace, &name.name, Some(uid));
        let note = format!("key {key}: {}; {consequence}", problem.problem);
        let cause = Cause::InvalidInjectionConfig;
        tokio::spawn(events::warn(client.clone(), about, cause, note));
    }
}

/// Logs the warnings that the last configuration did not have.
fn log_new(warnings: &[String], last: &[String]) {
    for warning in warnings.iter().filter(|warning| !last.contains(warning)) {
        warn!("{warning}");
    }
}
