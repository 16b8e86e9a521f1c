//! Health and metrics over HTTP.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tracing::error;

use super::{health::Health, metrics::Metrics};
use crate::agent::blocking::blocking;

/// The content type of the metrics (the text format of `OpenMetrics` 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Limit for the response to `/startupz`. The startup probe's `timeoutSeconds` is longer.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the probes and the metrics.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    let ready = Router::new()
        .route("/startupz", get(startupz))
        .route("/readyz", get(readyz))
        .with_state(health);
    let metrics = Router::new()
        .route("/metrics", get(text))
        .with_state(metrics);
    let all = Router::new()
        .route("/healthz", get("ok\n"))
        .merge(ready)
        .merge(metrics);
    if let Err(error) = axum::serve(listener, all).await {
        error!("HTTP server for health and metrics stopped: {error}");
    }
}

/// Responds once the agent is ready, or after the timeout. kubelet sends no other probe until then: a
/// failed readiness probe during a normal start would be a Warning.
async fn startupz(State(health): State<Health>) -> &'static str {
    let _late = timeout(STARTUP_TIMEOUT, health.until_ready()).await;
    "ok\n"
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

/// Held during a scrape, which counts map entries: scrapes occupy at most one blocking thread.
static SCRAPE_LOCK: Semaphore = Semaphore::const_new(1);

async fn text(State(metrics): State<Metrics>) -> impl IntoResponse {
    let permit = SCRAPE_LOCK.acquire().await;
    let counted = blocking(move || {
        // Counting continues if the client disconnects.
        let _permit = permit;
        Ok(metrics.text()?)
    });
    match counted.await {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
