//! The agent's HTTP API: what it knows about its node, and the flows of the node's pods.

mod connection;
mod error;
mod events;
mod flows;
mod loopback;
mod node;
mod page;
mod pods;
mod reader;
pub(super) mod states;

use std::{future, io, path::Path, sync::Arc};

use axum::{Router, routing::get};
use tracing::error;

use self::{reader::Reader, states::States};
use super::{flows::FlowHub, telemetry::health::Health};
use crate::{cni::protocol, observe::message::FLOWS};

/// What the requests are served from. Clones share it.
#[derive(Clone)]
pub(super) struct Api {
    node: Arc<str>,
    health: Health,
    flows: FlowHub,
    states: States,
    reader: Reader,
}

impl Api {
    pub(super) fn new(node: &str, health: Health, states: States) -> Self {
        Self {
            node: node.into(),
            health,
            flows: FlowHub::new(),
            states,
            reader: Reader::default(),
        }
    }

    fn routes(self) -> Router {
        Router::new()
            .route("/v1/health", get(node::health))
            .route("/v1/states", get(node::states))
            .route("/v1/pods", get(pods::list))
            .route("/v1/pods/{namespace}/{name}", get(pods::status))
            .route("/v1/pods/{namespace}/{name}/rules", get(pods::rules))
            .route("/v1/pods/{namespace}/{name}/explain", get(pods::explain))
            .route(FLOWS, get(flows::lines))
            .route("/v1/events", get(events::stream))
            .route("/", get(page::html))
            .with_state(self)
    }
}

/// Serves the API on a Unix socket that only root can open, in place of an agent that has exited. Does
/// not return: the agent captures pods also without this socket.
pub(super) async fn serve(path: &Path, api: Api) -> ! {
    if let Err(error) = try_serve(path, api).await {
        error!("no observer can connect to {}: {error}", path.display());
    }
    future::pending().await
}

/// Serves the API and the page on this port of the loopback interface, unless the port is 0. Does not
/// return.
pub(super) async fn serve_page(port: u16, api: Api) -> ! {
    match port {
        0 => future::pending().await,
        port => loopback::serve(port, api.routes()).await,
    }
}

async fn try_serve(path: &Path, api: Api) -> io::Result<()> {
    axum::serve(protocol::listen(path)?, api.routes()).await
}
