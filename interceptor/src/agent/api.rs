//! The agent's HTTP API for observers, on a Unix socket that only root can open.

use std::{convert::Infallible, future, io, path::Path, sync::Arc};

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

/// Listens at `path`, in place of an agent that has exited, and serves observers. Does not return: the
/// agent captures pods also without this socket.
pub(super) async fn serve(path: &Path, flows: FlowHub) -> ! {
    if let Err(error) = try_serve(path, flows).await {
        error!("no observer can connect to {}: {error}", path.display());
    }
    future::pending().await
}

async fn try_serve(path: &Path, flows: FlowHub) -> io::Result<()> {
    let routes = Router::new()
        .route(FLOWS, get(send_flows))
        .with_state(flows);
    axum::serve(protocol::listen(path)?, routes).await
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
