//! Health and metrics over HTTP.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tracing::error;

use super::{capture::blocking, health::Health, metrics::Metrics};

/// What Prometheus is told (the text format of `OpenMetrics` 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens where the probes and Prometheus ask.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for health and metrics: end who listens there, or give \
             another --http-address"
        )
    })
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    let ready = Router::new()
        .route("/readyz", get(readyz))
        .with_state(health);
    let told = Router::new()
        .route("/metrics", get(text))
        .with_state(metrics);
    let all = Router::new()
        .route("/healthz", get("ok\n"))
        .merge(ready)
        .merge(told);
    if let Err(error) = axum::serve(listener, all).await {
        error!("health and metrics are no longer served: {error}");
    }
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let problems = health.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

async fn text(State(metrics): State<Metrics>) -> impl IntoResponse {
    // Counting what is in the maps may take a while.
    match blocking(move || Ok(metrics.text()?)).await {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
