//! `kubectl interceptor`: commands that reach a node's agent through the API server.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use self::{page::Page, target::Target};
use super::{
    explain::Connection,
    observe::Flows,
    status,
    top::{Options, source::Source},
};
use crate::{explain::Explanation, status::PodStatus};

mod page;
mod target;

/// The name of the binary by which kubectl finds it.
pub(super) const PLUGIN: &str = "kubectl-interceptor";

/// Show what interceptor does with the connections of a pod, from anywhere in the cluster
///
/// Finds the node agent of a pod, and reads from it through the API server, as `kubectl port-forward`
/// does. Needs no access to the node. The required rights are in deploy/viewer.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Kubectl {
    #[command(subcommand)]
    command: Command,
}

/// Show what interceptor does with the connections of a pod, from anywhere in the cluster
///
/// Finds the node agent of a pod, and reads from it through the API server, as `kubectl port-forward`
/// does. Needs no access to the node. The required rights are in deploy/viewer.
#[derive(Parser)]
#[command(
    name = "kubectl interceptor",
    bin_name = "kubectl interceptor",
    version,
    max_term_width = 100,
    after_help = EXAMPLES
)]
pub(super) struct Plugin {
    #[command(flatten)]
    pub(super) kubectl: Kubectl,
}

const EXAMPLES: &str = "\
Examples:
  A pod on one screen; the captured pods of a node:
    kubectl interceptor status web-0 -n shop
    kubectl interceptor status --node node-1
  The connections of a pod as they are made:
    kubectl interceptor observe shop/web-0
  The rule that decides about a connection:
    kubectl interceptor explain shop/web-0 --to 10.96.0.10:80";

#[derive(Subcommand)]
enum Command {
    Status(Status),
    Observe(Box<Observe>),
    Explain(Explain),
    Top(Top),
    Page(Page),
}

/// Show a captured pod, or all of a node
///
/// Exits with 3 if a pod has a warning, which the output shows.
#[derive(Args)]
struct Status {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: status::Output,

    #[command(flatten)]
    target: Target,
}

/// Show each connection of a pod, or of a node's pods, as it is made
#[derive(Args)]
// The filter -n has this meaning too.
#[command(mut_arg("namespace_of_pod", |arg| arg.short(None).long("pod-namespace").hide(true)))]
struct Observe {
    #[command(flatten)]
    flows: Flows,

    #[command(flatten)]
    target: Target,
}

/// Explain how a connection of a pod is handled, and which rule decides
#[derive(Args)]
#[command(mut_arg("target", |arg| arg.required(true)))]
#[command(mut_arg("node", |arg| arg.hide(true)))]
struct Explain {
    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    target: Target,
}

/// Show the connections per second of a pod, or of a node's pods, live
#[derive(Args)]
// `-n` is the namespace here.
#[command(mut_arg("count", |arg| arg.short(None)))]
struct Top {
    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    target: Target,
}

impl Kubectl {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            let done = |()| ExitCode::SUCCESS;
            match &self.command {
                Command::Status(command) => command.run().await,
                Command::Observe(command) => command.run().await.map(done),
                Command::Explain(command) => command.run().await.map(done),
                Command::Top(command) => command.run().await.map(done),
                Command::Page(command) => command.run().await.map(done),
            }
        })
    }
}

impl Status {
    async fn run(&self) -> Result<ExitCode> {
        let (pod, agent) = self.target.find().await?;
        let mut agent = agent.connect().await?;
        let pods: Vec<PodStatus> = match &pod {
            Some(pod) => vec![agent.get(&format!("/v1/pods/{pod}")).await?],
            None => agent.get("/v1/pods").await?,
        };
        status::print(&pods, self.output, pod.is_some())
    }
}

impl Observe {
    async fn run(&self) -> Result<()> {
        let namespace = self.flows.only_namespace();
        let (pod, agent) = self.target.find_in(namespace).await?;
        let agent = agent.connect().await?;
        self.flows.show_of_agent(agent, pod.as_ref()).await
    }
}

impl Explain {
    async fn run(&self) -> Result<()> {
        let (pod, agent) = self.target.find().await?;
        let pod = pod.context("name a pod")?;
        let parameters = self.connection.parameters();
        let path = format!("/v1/pods/{pod}/explain?{parameters}");
        let explanation: Explanation = agent.connect().await?.get(&path).await?;
        self.connection.print(&explanation)
    }
}

impl Top {
    async fn run(&self) -> Result<()> {
        let (pod, agent) = self.target.find().await?;
        let source = Source::Agent(agent.connect().await?, pod);
        self.options.show(source).await
    }
}
