//! What the node agent reports, if one runs.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{runtime, time::timeout};

use super::{Sources, indented};
use crate::{agent_client::AgentClient, observe::message::FLOWS};

const TIMEOUT: Duration = Duration::from_secs(10);

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
        let agent = AgentClient::at_address(address).await;
        let none = || format!("no node agent listens at {address}");
        agent.with_context(none)?.text("/metrics").await
    })
}

fn of_socket(sources: &Sources, path: &str) -> Result<String> {
    let socket = &sources.socket;
    run(async {
        let agent = AgentClient::at_socket(socket).await?;
        let none = || format!("no node agent listens at {}", socket.display());
        agent.with_context(none)?.text(path).await
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
