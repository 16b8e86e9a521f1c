//! Health and metrics over HTTP.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use nix::errno::Errno;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tracing::error;

use super::{health::Health, metrics::Metrics};
use crate::agent::blocking::blocking;

/// The content type of the metrics (the text format of `OpenMetrics` 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a start may take, at most, until readiness is asked for. The startup probe waits longer
/// than this for the answer (`timeoutSeconds`).
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Listens where the probes and Prometheus ask.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listening = match TcpListener::bind(address).await {
        Err(error) if is_without_ipv6(&error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listening => listening,
    };
    listening.with_context(|| {
        format!(
            "cannot listen on {address} for health and metrics: stop the process that uses this \
             address, or set --http-address"
        )
    })
}

/// The kernel has no IPv6 (`ipv6.disable=1`), or not on this node (`disable_ipv6`).
fn is_without_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// Serves requests for ever.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    let ready = Router::new()
        .route("/startupz", get(startupz))
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
        error!("HTTP server for health and metrics stopped: {error}");
    }
}

/// Answers once the agent is ready, or has been waited for long enough. kubelet asks nothing else
/// until then: a readiness probe that fails while an agent starts as it should would be a Warning.
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

/// Held during a scrape, which counts map entries and may take a while: scrapes occupy at most one
/// of the blocking threads.
static SCRAPE_LOCK: Semaphore = Semaphore::const_new(1);

async fn text(State(metrics): State<Metrics>) -> impl IntoResponse {
    let turn = SCRAPE_LOCK.acquire().await;
    let counted = blocking(move || {
        // The caller may have gone in the meantime; counting continues.
        let _turn = turn;
        Ok(metrics.text()?)
    });
    match counted.await {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
