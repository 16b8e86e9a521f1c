//! `interceptor observe`

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ColorChoice, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use self::filters::Filters;
use crate::{
    agent_client::{AgentClient, AgentFlows},
    arguments::number,
    host,
    observe::{
        filter::{Condition, Filter},
        flow::Flow,
        format::{self, Style, TimeFormat},
        message::{Message, Parameters, SOCKET},
        node::{NodeFlows, POLL_INTERVAL},
    },
    pod_name::PodName,
    stdio::{self, message},
};

mod filters;

/// Show each connection of captured pods as it is made, and the rule that decided
///
/// A flow is CAPTURED (goes to the proxy), PASSED (goes to its destination) or REFUSED. The programs
/// write flows only while a process observes them. Ctrl-C ends the command.
#[derive(Args)]
#[command(visible_alias = "monitor", after_help = EXAMPLES)]
pub(super) struct Observe {
    /// The node agent's socket. If no agent listens there, the flows are read from the kernel, which
    /// has one reader at a time
    #[arg(long, value_name = "FILE", default_value = SOCKET)]
    socket: PathBuf,

    #[command(flatten)]
    flows: Flows,
}

/// Which flows are shown, and how.
#[derive(Args)]
pub(super) struct Flows {
    /// Show new flows; with --since after those of the agent's history [default without --last and
    /// --since]
    #[arg(short, long, conflicts_with = "last")]
    follow: bool,

    /// Show the last N flows of the agent's history, and exit. An agent keeps the last 4096 that
    /// were observed
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX), conflicts_with = "first")]
    last: Option<u64>,

    /// Show the flows of the agent's history that are not older than this, such as 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = age)]
    since: Option<SignedDuration>,

    /// Exit after this number of flows
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    first: Option<u64>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    /// Format of times
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    time_format: TimeFormat,

    /// Color of verdicts [default: on a terminal, unless `NO_COLOR` is set]
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", hide_default_value = true)]
    color: ColorChoice,

    // Last: its heading is for all arguments after it.
    #[command(flatten)]
    filters: Filters,
}

const EXAMPLES: &str = "\
Examples:
  Everything on this node:
    interceptor observe
  Connections that fail, as JSON, one object on each line:
    interceptor observe --verdict REFUSED -o json
  One pod, without DNS and without the proxy's own connections:
    interceptor observe --netns 4711 --not --port 53 --not --uid 1337";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each flow
    #[default]
    Compact,
    /// One line for each field
    Dict,
    /// One JSON object for each flow, on a line of its own
    Json,
    /// Columns
    Table,
}

impl Observe {
    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let filter = self.flows.filters.filter()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async { self.flows.show(self.source().await?, &filter).await })
    }

    async fn source(&self) -> Result<Source> {
        let parameters = self.flows.parameters();
        if let Some(agent) = AgentClient::at_socket(&self.socket).await? {
            return Ok(Source::Agent(agent.flows(parameters).await?));
        }
        ensure!(
            self.flows.last.is_none() && self.flows.since.is_none(),
            "no node agent listens at {}, and only an agent keeps flows for --last and --since",
            self.socket.display()
        );
        Ok(Source::Node {
            flows: Box::new(NodeFlows::open()?),
            lost: 0,
        })
    }
}

impl Flows {
    /// The namespace of the filters, if it is one.
    pub(super) fn only_namespace(&self) -> Option<&str> {
        self.filters.only_namespace()
    }

    /// Shows the flows of an agent on another node: of one pod, or of all.
    pub(super) async fn show_of_agent(
        &self,
        agent: AgentClient,
        pod: Option<&PodName>,
    ) -> Result<()> {
        let mut filter = self.filters.filter_of_another_node()?;
        if let Some(PodName { namespace, name }) = pod {
            let condition = Condition::Pod(namespace.clone(), name.clone());
            filter.wanted.push(condition);
        }
        let source = Source::Agent(agent.flows(self.parameters()).await?);
        self.show(source, &filter).await
    }

    async fn show(&self, mut source: Source, filter: &Filter) -> Result<()> {
        if self.follows() && io::stderr().is_terminal() {
            message!("interceptor: observing; press Ctrl-C to end");
        }
        if self.output == Output::Table && !print(&format::table_header())? {
            return Ok(());
        }
        let since = self.since.map(|age| Timestamp::now() - age);
        let is_wanted =
            |flow: &Flow| filter.matches(flow) && since.is_none_or(|since| flow.time >= since);
        let mut printed = 0;
        // Of the history only the last are printed, once its end is known.
        let mut last = VecDeque::new();
        while let Some(flows) = source.next().await? {
            let flows = flows.into_iter().filter(is_wanted);
            if let Some(limit) = self.last {
                last.extend(flows);
                let surplus = (last.len() as u64).saturating_sub(limit);
                last.drain(..usize::try_from(surplus)?);
                continue;
            }
            let left = self.first.map_or(u64::MAX, |first| first - printed);
            let flows: Vec<_> = flows
                .take(usize::try_from(left).unwrap_or(usize::MAX))
                .collect();
            printed += flows.len() as u64;
            if !self.print(&flows)? || self.first == Some(printed) {
                return Ok(());
            }
        }
        self.print(last.make_contiguous()).map(drop)
    }

    /// Prints flows at once: at many flows in a second, a write for each would take most of the time.
    /// Returns whether a reader is left.
    fn print(&self, flows: &[Flow]) -> Result<bool> {
        if flows.is_empty() {
            return Ok(true);
        }
        let lines: Result<String> = flows.iter().map(|flow| self.text(flow)).collect();
        print(&lines?)
    }

    /// Whether new flows are shown.
    const fn follows(&self) -> bool {
        self.follow || (self.last.is_none() && self.since.is_none())
    }

    const fn parameters(&self) -> Parameters {
        Parameters {
            history: self.since.is_some(),
            follow: self.follows(),
        }
    }

    fn text(&self, flow: &Flow) -> Result<String> {
        let style = Style {
            time: self.time_format,
            is_colored: match self.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => {
                    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
                }
            },
        };
        Ok(match self.output {
            Output::Compact => style.compact(flow),
            Output::Dict => style.dict(flow),
            Output::Json => serde_json::to_string(flow)? + "\n",
            Output::Table => style.row(flow),
        })
    }
}

/// Whether a reader is left.
fn print(text: &str) -> Result<bool> {
    match stdio::print_required(text) {
        Err(error) if stdio::is_closed_pipe(&error) => Ok(false),
        result => result.map(|()| true),
    }
}

/// How long ago. (jiff's syntax has units that this excludes: the length of a month varies.)
fn age(text: &str) -> Result<SignedDuration, String> {
    let age = text.parse::<SignedDuration>().ok();
    age.filter(SignedDuration::is_positive)
        .ok_or_else(|| "expected a duration such as 90s, 5m or 1h30m".to_owned())
}

/// Where flows come from.
enum Source {
    Agent(AgentFlows),
    /// The kernel, and the number of flows that were lost so far.
    Node {
        flows: Box<NodeFlows>,
        lost: u64,
    },
}

impl Source {
    /// The next flows; nothing at the end. Reports lost flows.
    async fn next(&mut self) -> Result<Option<Vec<Flow>>> {
        match self {
            Self::Agent(flows) => {
                let messages = flows.read().await?;
                if messages.is_empty() {
                    return Ok(None);
                }
                Ok(Some(messages.into_iter().filter_map(reported).collect()))
            }
            Self::Node { flows, lost } => {
                sleep(POLL_INTERVAL).await;
                let read = flows.read()?;
                let lost_in_all = flows.lost()?;
                if lost_in_all > *lost {
                    report_lost(lost_in_all - *lost);
                    *lost = lost_in_all;
                }
                Ok(Some(read))
            }
        }
    }
}

/// The flow of a message. Other messages are printed.
fn reported(message: Message) -> Option<Flow> {
    match message {
        Message::Flow(flow) => return Some(*flow),
        Message::Lost(lost) => report_lost(lost),
        Message::Error(error) => {
            message!("interceptor: the agent cannot read flows; it retries: {error}");
        }
    }
    None
}

fn report_lost(lost: u64) {
    message!("interceptor: {lost} flows were lost, as they were not read in time");
}
