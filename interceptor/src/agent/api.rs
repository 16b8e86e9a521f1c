//! The agent's HTTP API for observers, on a Unix socket that only root can open.

use std::{convert::Infallible, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
    routing::get,
};
use futures_util::{Stream, StreamExt as _, stream};
use tracing::error;

use super::flows::{self, FlowHub};
use crate::{
    cni::protocol,
    observe::message::{FLOWS, Parameters},
};

/// Listens at `path`, in place of an agent that has exited, and serves observers.
pub(super) async fn serve(path: &Path, flows: FlowHub) -> Result<()> {
    let socket = protocol::listen(path)
        .with_context(|| format!("cannot listen for observers at {}", path.display()))?;
    let routes = Router::new()
        .route(FLOWS, get(send_flows))
        .with_state(flows);
    if let Err(error) = axum::serve(socket, routes).await {
        error!("the HTTP server for observers stopped: {error}");
    }
    std::future::pending().await
}

async fn send_flows(
    Query(parameters): Query<Parameters>,
    State(flows): State<FlowHub>,
) -> impl IntoResponse {
    let body = if parameters.follow {
        let (recent, lines) = flows.observe();
        let recent = if parameters.history {
            recent
        } else {
            Vec::new()
        };
        let new = stream::unfold(lines, |mut lines| async move {
            let line = flows::next(&mut lines).await?;
            Some((line, lines))
        });
        chunks(stream::iter(recent).chain(new))
    } else {
        chunks(stream::iter(flows.recent()))
    };
    ([(CONTENT_TYPE, "application/x-ndjson")], body)
}

fn chunks(lines: impl Stream<Item = Arc<str>> + Send + 'static) -> Body {
    let chunks = lines.map(|line| Ok::<_, Infallible>(Bytes::copy_from_slice(line.as_bytes())));
    Body::from_stream(chunks)
}
