//! `kubectl interceptor page`

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    spawn,
};

use super::target::Target;
use crate::{
    agent_client::forward::{AgentPod, Forwarded},
    arguments::number,
    stdio::{self, message},
};

/// Forward the page of a node's agent to this machine, until Ctrl-C
///
/// Prints the URL. Other users of this machine can open it too.
#[derive(Args)]
pub(super) struct Page {
    /// Local port, 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0, value_parser = number(0..=u16::MAX))]
    port: u16,

    #[command(flatten)]
    target: Target,
}

impl Page {
    pub(super) async fn run(&self) -> Result<()> {
        let (_, agent) = self.target.find().await?;
        // Reports now what would otherwise be an empty page.
        let _health: serde_json::Value = agent.connect().await?.get("/v1/health").await?;
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.with_context(|| format!("--port {}", self.port))?;
        stdio::print(&format!("http://{}/\n", listener.local_addr()?))?;
        message!(
            "interceptor: forwarding to {}; press Ctrl-C to end",
            agent.describe()
        );
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (browser, _) = accepted.context("cannot accept a connection")?;
                    spawn(forward(agent.clone(), browser));
                }
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    }
}

/// Forwards one connection until either side closes it.
async fn forward(agent: AgentPod, mut browser: TcpStream) {
    let Forwarded {
        mut stream,
        failure,
    } = match agent.forward().await {
        Ok(forwarded) => forwarded,
        Err(error) => return message!("interceptor: {error:#}"),
    };
    // An error of the connection is the end of it.
    let _closed = copy_bidirectional(&mut browser, &mut stream).await;
    drop(stream);
    if let Some(failure) = failure.await {
        message!("interceptor: {}: {}", agent.describe(), failure.trim());
    }
}
