//! Health and metrics over plain HTTP.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use super::metrics::Metrics;

/// The content type of the metrics (the text format of `OpenMetrics` 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the webhook is not ready. Copies share it.
#[derive(Clone)]
pub(super) struct Health(Arc<RwLock<Vec<String>>>);

impl Health {
    pub(super) fn new(problem: &str) -> Self {
        Self(Arc::new(RwLock::new(vec![problem.to_owned()])))
    }

    /// Replaces the problems. Ready without any.
    pub(super) fn set(&self, problems: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.0.read().unwrap_or_else(PoisonError::into_inner);
        problems.clone()
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
