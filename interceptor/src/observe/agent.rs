//! The flows of this node, from its agent.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use axum::{
    body::{Body, Bytes},
    http::{Request, StatusCode, header::HOST},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, spawn};

use super::message::{FLOWS, Message, Parameters};

/// A response of the agent.
pub(crate) struct AgentFlows {
    chunks: BoxStream<'static, Result<Bytes, axum::Error>>,
    /// The start of a line whose rest has not been received.
    partial: Vec<u8>,
}

impl AgentFlows {
    /// Sends a request to the agent that listens at `socket`; nothing if none does. Must be called in
    /// a tokio runtime.
    pub(crate) async fn request(socket: &Path, parameters: Parameters) -> Result<Option<Self>> {
        let shown = socket.display();
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot connect to the agent at {shown}"));
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its error is also that of the response.
        spawn(connection);
        let Parameters { history, follow } = parameters;
        let request = Request::get(format!("{FLOWS}?history={history}&follow={follow}"))
            .header(HOST, "interceptor")
            .body(Body::empty())?;
        let response = sender.send_request(request).await;
        let response = response.with_context(|| format!("no response of the agent at {shown}"))?;
        ensure!(
            response.status() == StatusCode::OK,
            "the agent at {shown} responded with status {}: is it of another release?",
            response.status()
        );
        Ok(Some(Self {
            chunks: Body::new(response.into_body()).into_data_stream().boxed(),
            partial: Vec::new(),
        }))
    }

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
