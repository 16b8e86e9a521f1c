//! A client of the agent's HTTP API: over its Unix socket on the node, or over a port-forward of the API
//! server.

use std::{future::ready, io::ErrorKind, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode, header::HOST},
    response::Response,
};
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    spawn,
    time::timeout,
};

pub(crate) mod forward;

use crate::observe::message::{FLOWS, Message, Parameters};

/// More than the status of any node's pods.
const MAX_RESPONSE: usize = 64 << 20;
/// The longest reason of a failure.
const MAX_PROBLEM: usize = 1 << 16;

/// A connection to an agent, for one request after the other.
pub(crate) struct AgentClient {
    sender: SendRequest<Body>,
    /// Where the agent is, for errors.
    agent: String,
    /// Why the connection was not established, if that is found out later than here.
    failure: BoxFuture<'static, Option<String>>,
    /// Why the agent may not respond.
    known_problem: Option<String>,
}

/// Limit for the reason of a failed connection to arrive.
const FAILURE_LIMIT: Duration = Duration::from_secs(2);

impl AgentClient {
    /// Connects to the agent that listens at `socket`; nothing if none does.
    pub(crate) async fn at_socket(socket: &Path) -> Result<Option<Self>> {
        let agent = format!("the agent at {}", socket.display());
        match UnixStream::connect(socket).await {
            Ok(stream) => Self::over(stream, agent).await.map(Some),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot connect to {agent}")),
        }
    }

    /// Connects to the agent's HTTP endpoint of probes and metrics.
    pub(crate) async fn at_address(address: SocketAddr) -> Result<Self> {
        let agent = format!("the agent at {address}");
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("cannot connect to {agent}"))?;
        Self::over(stream, agent).await
    }

    /// Speaks to an agent over an open connection. Must be called in a tokio runtime.
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        agent: String,
    ) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its error is also that of the request.
        spawn(connection);
        Ok(Self {
            sender,
            agent,
            failure: Box::pin(ready(None)),
            known_problem: None,
        })
    }

    /// The same, with what errors are due to.
    fn explained_by(
        self,
        failure: BoxFuture<'static, Option<String>>,
        known_problem: Option<String>,
    ) -> Self {
        Self {
            failure,
            known_problem,
            ..self
        }
    }

    /// The document at `path`.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        let body = self.body(path).await?;
        let agent = &self.agent;
        serde_json::from_slice(&body).with_context(|| {
            format!("{agent} responded to {path} with another document: is it of another release?")
        })
    }

    /// The text at `path`.
    pub(crate) async fn text(&mut self, path: &str) -> Result<String> {
        let body = self.body(path).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn body(&mut self, path: &str) -> Result<Bytes> {
        let response = self.send(path).await?;
        let body = to_bytes(response.into_body(), MAX_RESPONSE).await;
        body.with_context(|| format!("the connection to {} failed", self.agent))
    }

    /// Flows, until the agent or the reader ends the connection.
    pub(crate) async fn flows(mut self, parameters: Parameters) -> Result<AgentFlows> {
        let Parameters { history, follow } = parameters;
        let path = format!("{FLOWS}?history={history}&follow={follow}");
        let response = self.send(&path).await?;
        Ok(AgentFlows {
            chunks: response.into_body().into_data_stream().boxed(),
            partial: Vec::new(),
            _connection: self.sender,
        })
    }

    /// The response to a GET request, if it is a success.
    async fn send(&mut self, path: &str) -> Result<Response> {
        let request = Request::get(path)
            // The agent serves only requests that name its own host.
            .header(HOST, "localhost")
            .body(Body::empty())?;
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Err(self.no_response(error).await),
        };
        let agent = &self.agent;
        let response = response.map(Body::new);
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(problem(agent, status, response).await),
        }
    }

    async fn no_response(&mut self, error: hyper::Error) -> anyhow::Error {
        let late = timeout(FAILURE_LIMIT, &mut self.failure).await;
        let failure = late.unwrap_or_default();
        let cause = failure.map_or_else(
            || anyhow::Error::from(error),
            |failure| anyhow!("{}", failure.trim()),
        );
        let known = self.known_problem.as_ref();
        let known = known.map_or_else(String::new, |problem| format!(" ({problem})"));
        cause.context(format!("no response of {}{known}", self.agent))
    }
}

/// The agent's own words, which are one line.
async fn problem(agent: &str, status: StatusCode, response: Response) -> anyhow::Error {
    let body = to_bytes(response.into_body(), MAX_PROBLEM)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    match text.trim() {
        "" => anyhow!("{agent} responded with status {status}: is it of another release?"),
        text => anyhow!("{agent}: {text}"),
    }
}

/// Flows of an agent.
pub(crate) struct AgentFlows {
    chunks: BoxStream<'static, Result<Bytes, axum::Error>>,
    /// The start of a line whose rest has not been received.
    partial: Vec<u8>,
    /// The connection is closed when this is dropped.
    _connection: SendRequest<Body>,
}

impl AgentFlows {
    /// The next messages; none at the end of the response.
    pub(crate) async fn read(&mut self) -> Result<Vec<Message>> {
        loop {
            let Some(chunk) = self.chunks.next().await else {
                if self.partial.is_empty() {
                    return Ok(Vec::new());
                }
                bail!("the agent closed the connection in the middle of a line");
            };
            self.partial
                .extend_from_slice(&chunk.context("the connection to the agent failed")?);
            let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let rest = self.partial.split_off(end + 1);
            let lines = std::mem::replace(&mut self.partial, rest);
            return lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).context("an invalid line from the agent"))
                .collect();
        }
    }
}
