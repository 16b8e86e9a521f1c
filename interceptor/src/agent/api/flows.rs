//! The flows as lines of JSON.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
};
use futures_util::{Stream, StreamExt as _, stream};

use super::Api;
use crate::{agent::flows, observe::message::Parameters};

pub(super) async fn lines(
    Query(parameters): Query<Parameters>,
    State(api): State<Api>,
) -> impl IntoResponse {
    let body = if parameters.follow {
        let (recent, lines) = api.flows.observe();
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
        chunks(stream::iter(api.flows.recent()))
    };
    ([(CONTENT_TYPE, "application/x-ndjson")], body)
}

fn chunks(lines: impl Stream<Item = Arc<str>> + Send + 'static) -> Body {
    let chunks = lines.map(|line| Ok::<_, Infallible>(Bytes::copy_from_slice(line.as_bytes())));
    Body::from_stream(chunks)
}
