//! The captured pods: their status, the equivalent iptables rules, and explanations.

use std::time::Duration;

use anyhow::Result;
use axum::{
    Json,
    extract::{Path, Query, State},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
};

use super::{Api, connection::Connection, error::ApiError};
use crate::{
    dataplane::Dataplane,
    explain::{self, Explanation},
    netns::{Netns, NetnsSpec},
    pod_name::PodName,
    rules,
    status::{self, PodStatus},
};

/// How old the status of all pods may be.
const MAX_AGE: Duration = Duration::from_secs(1);

pub(super) async fn list(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let status = api.reader.status(MAX_AGE).await?;
    Ok((
        [(CONTENT_TYPE, "application/json")],
        status.pods.get().to_owned(),
    ))
}

pub(super) async fn status(
    State(api): State<Api>,
    Path(name): Path<PodName>,
) -> Result<Json<PodStatus>, ApiError> {
    of_pod(&api, name, read_status).await.map(Json)
}

pub(super) async fn rules(
    State(api): State<Api>,
    Path(name): Path<PodName>,
) -> Result<String, ApiError> {
    let listing = |spec: &NetnsSpec| {
        let status = read_status(spec)?;
        status
            .map(|pod| rules::listing(&pod.attached.settings))
            .transpose()
    };
    of_pod(&api, name, listing).await
}

pub(super) async fn explain(
    State(api): State<Api>,
    Path(name): Path<PodName>,
    Query(connection): Query<Connection>,
) -> Result<Json<Explanation>, ApiError> {
    let query = explain::Query::try_from(connection)?;
    let explained = move |spec: &NetnsSpec| explain::explain(&Netns::open(spec)?, &query).map(Some);
    of_pod(&api, name, explained).await.map(Json)
}

/// Reads something of a captured pod.
async fn of_pod<T: Send + 'static>(
    api: &Api,
    name: PodName,
    read: impl FnOnce(&NetnsSpec) -> Result<Option<T>> + Send + 'static,
) -> Result<T, ApiError> {
    let named = name.clone();
    let found = api.reader.run(move || {
        let spec = Dataplane::new().named(&named)?;
        spec.map_or(Ok(None), |spec| read(&spec))
    });
    found.await?.ok_or_else(|| {
        ApiError::not_found(format!(
            "no captured pod of this node is named {name}: /v1/pods lists the captured pods, \
             /v1/states all pods that the agent knows"
        ))
    })
}

/// Nothing if the pod was detached in the meantime.
fn read_status(spec: &NetnsSpec) -> Result<Option<PodStatus>> {
    Ok(status::read(Some(spec))?.pop())
}
