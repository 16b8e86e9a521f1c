//! `interceptor top`

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use self::{
    rates::{PodCounts, PodRates, Sort, rates},
    screen::{Ends, Screen},
    source::Source,
};
use crate::{
    arguments::number,
    host,
    stdio::{is_closed_pipe, print_required},
};

mod rates;
mod screen;
pub(super) mod source;
mod text;

/// Show the connections of each captured pod per second, live
///
/// Counts connections and DNS queries by direction and verdict: CAPTURED (to the proxy), PASSED (to the
/// destination), REFUSED. On a terminal the table is redrawn; q or Ctrl-C ends it. Otherwise each update
/// is a block of lines. Needs no node agent, and costs the pods nothing.
#[derive(Args)]
#[command(after_help = "\
Examples:
  The busiest pods:
    interceptor top
  The pods whose connections fail, one measurement of ten seconds:
    interceptor top --sort refused --interval 10 --count 1
  For programs, one JSON object on each line:
    interceptor top -o json")]
pub(super) struct Top {
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Options {
    /// What is sorted by, highest first; `pod` by name
    #[arg(long, value_enum, default_value_t, value_name = "COLUMN")]
    sort: Sort,

    /// Exit after this number of updates
    #[arg(short = 'n', long, value_name = "N", value_parser = number(1..=u64::MAX))]
    count: Option<u64>,

    /// Seconds between two updates
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1, value_parser = number(1..=3600_u64))]
    interval: u64,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table.
    #[default]
    Text,
    /// One JSON object for each update, on a line of its own.
    Json,
}

/// An update, for programs.
#[derive(Serialize)]
struct Update<'a> {
    time: Timestamp,
    /// The seconds that the rates are of.
    seconds: f64,
    pods: &'a [PodRates],
}

impl Top {
    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(self.options.show(Source::Node))
    }
}

impl Options {
    /// Shows the rates of a node's pods until the user ends it.
    pub(super) async fn show(&self, mut source: Source) -> Result<()> {
        let mut ends = Ends::listen()?;
        let mut before = Reading::of(&mut source).await?;
        let mut screen = match self.output {
            Output::Text => Screen::open()?,
            Output::Json => None,
        };
        let interval = Duration::from_secs(self.interval);
        let mut updates = 0;
        while self.count.is_none_or(|count| updates < count) {
            if !ends.wait(interval, screen.as_mut()).await {
                break;
            }
            let now = Reading::of(&mut source).await?;
            let text = self.text(&before, &now, screen.as_ref())?;
            match print_required(&text) {
                Err(error) if is_closed_pipe(&error) => break,
                result => result?,
            }
            before = now;
            updates += 1;
        }
        Ok(())
    }

    fn text(&self, before: &Reading, now: &Reading, screen: Option<&Screen>) -> Result<String> {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let mut pods = rates(&before.pods, &now.pods, seconds);
        self.sort.apply(&mut pods);
        let time = Timestamp::now();
        Ok(match (self.output, screen) {
            (Output::Json, _) => {
                let pods = &pods;
                let update = Update {
                    time,
                    seconds,
                    pods,
                };
                serde_json::to_string(&update)? + "\n"
            }
            (Output::Text, None) => text::lines(&pods, time).join("\n") + "\n\n",
            (Output::Text, Some(screen)) => screen.drawn(&text::lines(&pods, time)),
        })
    }
}

/// The counters at one time.
struct Reading {
    at: Instant,
    pods: Vec<PodCounts>,
}

impl Reading {
    async fn of(source: &mut Source) -> Result<Self> {
        let pods = source.read().await?;
        let at = Instant::now();
        Ok(Self { at, pods })
    }
}
