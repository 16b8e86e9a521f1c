//! The agent itself, and the states of all pods of its node.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{Api, error::ApiError};
use crate::agent::policy::index::report::PodReport;

/// Whether the agent captures pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct AgentHealth {
    pub(super) node: String,
    pub(super) version: &'static str,
    pub(super) ready: bool,
    /// Why it is not ready.
    pub(super) problems: Vec<String>,
}

impl Api {
    pub(super) fn agent_health(&self) -> AgentHealth {
        let problems = self.health.problems();
        AgentHealth {
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            ready: problems.is_empty(),
            problems,
        }
    }
}

pub(super) async fn health(State(api): State<Api>) -> Json<AgentHealth> {
    Json(api.agent_health())
}

pub(super) async fn states(State(api): State<Api>) -> Result<Json<Vec<PodReport>>, ApiError> {
    Ok(Json(api.states.read().await?))
}
