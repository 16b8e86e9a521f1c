//! Keeps the configuration equal to what files and cluster contain.

use futures_util::{Stream, StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Reporter},
};
use tracing::{error, info, warn};

use super::{
    health::{Health, Part},
    injector::Injector,
    metrics::Metrics,
};
use crate::{
    api_server::events,
    sidecar::{Configured, Inputs, Origin, Plan, Problem},
};

/// The Events' reporting controller.
const CONTROLLER: &str = "interceptor-webhook";

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
        while let Some(inputs) = inputs.next().await {
            match self.configure(&inputs) {
                Ok(configured) => {
                    self.replace(configured);
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

    fn replace(&self, configured: Configured) {
        for warning in configured.warnings {
            warn!("{warning}");
        }
        let generation = self.injector.replace(&self.revision, configured.config);
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
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "InvalidInjectionConfig".to_owned(),
            note: Some(format!("key {key}: {}; {consequence}", problem.problem)),
            action: "LoadConfiguration".to_owned(),
            secondary: None,
        };
        let reporter = Reporter::from(CONTROLLER);
        let client = client.clone();
        tokio::spawn(async move { events::publish(client, reporter, event, &about).await });
    }
}
