//! Health and metrics over plain HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tracing::info;

use super::metrics::Metrics;

/// The content type of the metrics (the text format of `OpenMetrics` 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What can have a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Certificate,
    Configuration,
    /// The process is to end.
    Process,
}

/// Why the webhook is not ready. Copies share it.
#[derive(Clone)]
pub(super) struct Health(Arc<RwLock<BTreeMap<Part, String>>>);

impl Health {
    /// Neither certificate nor configuration are loaded.
    pub(super) fn new() -> Self {
        let problems = [
            (Part::Certificate, "the certificate is not loaded yet"),
            (Part::Configuration, "the configuration is not loaded yet"),
        ];
        let problems = problems.map(|(part, problem)| (part, problem.to_owned()));
        Self(Arc::new(RwLock::new(problems.into())))
    }

    /// Replaces the problem of a part. The webhook is ready when no part has one.
    pub(super) fn set(&self, part: Part, problem: Option<String>) {
        let mut problems = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let was_ready = problems.is_empty();
        match problem {
            Some(problem) => problems.insert(part, problem),
            None => problems.remove(&part),
        };
        if problems.is_empty() && !was_ready {
            info!("ready");
        }
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.0.read().unwrap_or_else(PoisonError::into_inner);
        problems.values().cloned().collect()
    }
}

pub(super) fn router(health: Health, metrics: Metrics) -> Router {
    let ready = Router::new()
        .route("/readyz", get(readyz))
        .with_state(health);
    let metrics = Router::new()
        .route("/metrics", get(text))
        .with_state(metrics);
    Router::new()
        .route("/healthz", get("ok\n"))
        .merge(ready)
        .merge(metrics)
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

async fn text(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
