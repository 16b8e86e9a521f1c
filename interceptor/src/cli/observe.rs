//! `interceptor observe`

use std::{
    io::{self, IsTerminal as _},
    thread,
};

use anyhow::Result;
use clap::{Args, ColorChoice, ValueEnum};

use self::filters::Filters;
use crate::{
    arguments::number,
    host,
    observe::{
        filter::Filter,
        flow::Flow,
        format::{self, Style, TimeFormat},
        node::{NodeFlows, POLL_INTERVAL},
    },
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
        let filter = self.filters.filter()?;
        let flows = NodeFlows::open()?;
        if io::stderr().is_terminal() {
            message!("interceptor: observing; press Ctrl-C to end");
        }
        if self.output == Output::Table && !print(&format::table_header())? {
            return Ok(());
        }
        let mut left = self.first;
        follow(flows, &filter, |flow| {
            let is_read = print(&self.text(flow)?)?;
            left = left.map(|left| left - 1);
            Ok(is_read && left != Some(0))
        })
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

/// Calls `each` for each flow until it returns false. Says how many flows were lost.
fn follow(
    mut flows: NodeFlows,
    filter: &Filter,
    mut each: impl FnMut(&Flow) -> Result<bool>,
) -> Result<()> {
    let mut lost = 0;
    loop {
        for flow in flows.read()? {
            if filter.matches(&flow) && !each(&flow)? {
                return Ok(());
            }
        }
        let lost_in_all = flows.lost()?;
        if lost_in_all > lost {
            let new = lost_in_all - lost;
            message!("interceptor: {new} flows were lost, as they were not read in time");
            lost = lost_in_all;
        }
        thread::sleep(POLL_INTERVAL);
    }
}
