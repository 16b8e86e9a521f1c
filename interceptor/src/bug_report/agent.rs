//! What the node agent reports, if one runs.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result, ensure};
use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header::HOST},
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime, spawn,
    time::timeout,
};

use super::{Sources, indented};
use crate::observe::message::FLOWS;

const TIMEOUT: Duration = Duration::from_secs(10);

/// More than any response of an agent.
const MAX_RESPONSE: usize = 64 << 20;

pub(super) fn health(sources: &Sources) -> Result<String> {
    indented(&of_socket(sources, "/v1/health")?)
}

pub(super) fn states(sources: &Sources) -> Result<String> {
    indented(&of_socket(sources, "/v1/states")?)
}

pub(super) fn flows(sources: &Sources) -> Result<String> {
    of_socket(sources, &format!("{FLOWS}?history=true&follow=false"))
}

pub(super) fn metrics(sources: &Sources) -> Result<String> {
    let address = sources.http_address;
    run(async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("no node agent listens at {address}"))?;
        get(stream, "/metrics").await
    })
}

fn of_socket(sources: &Sources, path: &str) -> Result<String> {
    let socket = &sources.socket;
    run(async {
        let stream = UnixStream::connect(socket).await;
        let stream =
            stream.with_context(|| format!("no node agent listens at {}", socket.display()))?;
        get(stream, path).await
    })
}

fn run(request: impl Future<Output = Result<String>>) -> Result<String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let response = timeout(TIMEOUT, request).await;
        response.context("the node agent does not respond")?
    })
}

async fn get<S>(stream: S, path: &str) -> Result<String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also that of the response.
    spawn(connection);
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Body::empty())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(
        status == StatusCode::OK,
        "the node agent responded to {path} with status {status}"
    );
    let body = to_bytes(Body::new(response.into_body()), MAX_RESPONSE).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
