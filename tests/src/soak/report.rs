//! The report of a run.

use std::{fmt, thread, time::Duration};

use comfy_table::{Table, presets};
use nix::sys::{sysinfo::sysinfo, utsname::uname};

use crate::{
    agents::Build,
    growth::{Comparison, Quarter},
    ledger::{Ledger, State},
    pods::{COUNT, ProxyKind, WITH_ENVOY},
    run::Plan,
    samples::Resource,
    traffic::{Kind, Progress},
};

/// The results. Displayed as Markdown.
pub(crate) struct Report {
    pub(crate) plan: Plan,
    /// From the time when all connections were open.
    pub(crate) lasted: Duration,
    /// The number of connections that were open at the end.
    pub(crate) open: usize,
    /// The number of agents.
    pub(crate) generations: u32,
    pub(crate) comparisons: Vec<ComparedResource>,
    pub(crate) ledger: Ledger,
}

/// The first and the last quarter of a resource, while an agent of one build ran.
pub(crate) struct ComparedResource {
    pub(crate) resource: Resource,
    pub(crate) build: Build,
    /// `None` without samples in one of the quarters.
    pub(crate) comparison: Option<Comparison>,
}

impl Report {
    /// The number of violations.
    pub(crate) fn violations(&self) -> usize {
        self.ledger.state().violation_count()
    }

    fn summary(&self, state: &State) -> String {
        let Plan {
            connections, seed, ..
        } = self.plan;
        let minutes = self.lasted.as_secs_f64() / 60.0;
        let count = |kind| state.counts.get(&kind).copied().unwrap_or_default();
        format!(
            "{minutes:.1} minutes, {connections} connections kept open, seed {seed}, on {}.\n\n\
             **{} wrong, {} lost, {} past the proxy, {} other violations.** Of the {connections} \
             connections, {} were open and used at the end. {} agents ran, one after the other.",
            machine(),
            count(Kind::Wrong),
            count(Kind::Lost),
            count(Kind::Bypassed),
            count(Kind::Other),
            self.open,
            self.generations,
        )
    }

    fn resources(&self) -> Table {
        let mut table = table(&[
            "resource",
            "agent of",
            "first quarter",
            "last quarter",
            "samples",
            "grown",
        ]);
        for compared in &self.comparisons {
            table.add_row(compared.cells());
        }
        table
    }
}

impl ComparedResource {
    fn cells(&self) -> [String; 6] {
        let name = self.resource.name().to_owned();
        let build = self.build.name().to_owned();
        let Some(Comparison {
            first,
            last,
            has_grown,
        }) = self.comparison
        else {
            return [
                name,
                build,
                String::new(),
                String::new(),
                "too few".to_owned(),
                String::new(),
            ];
        };
        let range = |quarter: Quarter| {
            let [least, most] =
                [quarter.least, quarter.most].map(|value| shown(self.resource, value));
            format!("{least} to {most}")
        };
        [
            name,
            build,
            range(first),
            range(last),
            format!("{} and {}", first.count, last.count),
            if has_grown { "YES" } else { "no" }.to_owned(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.ledger.state();
        writeln!(formatter, "{}\n", self.summary(&state))?;
        writeln!(formatter, "{}\n", traffic(&state))?;
        writeln!(formatter, "{}\n", disturbances(&state))?;
        writeln!(formatter, "{}", self.resources())?;
        for violation in &state.violations {
            writeln!(formatter, "\n- {violation}")?;
        }
        Ok(())
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

fn traffic(state: &State) -> Table {
    let mut table = table(&[
        "traffic",
        "connections opened",
        "exchanges on connections that stay open",
        "on others",
        "checked content",
    ]);
    for (proxy, progress) in &state.traffic {
        let pods = match proxy {
            ProxyKind::Envoy => WITH_ENVOY,
            ProxyKind::Small => COUNT - WITH_ENVOY,
        };
        table.add_row(cells(format!("{pods} pods, {proxy}"), progress));
    }
    let visits = format!("{} pods that came and went, small proxy", state.visits);
    table.add_row(cells(visits, &state.visitors));
    table
}

fn cells(name: String, progress: &Progress) -> [String; 5] {
    let Progress {
        opened,
        old_exchanges,
        new_exchanges,
        bytes,
    } = *progress;
    [
        name,
        opened.to_string(),
        old_exchanges.to_string(),
        new_exchanges.to_string(),
        format!("{} MB", bytes / 1_000_000),
    ]
}

fn disturbances(state: &State) -> Table {
    let mut table = table(&["disturbance", "times"]);
    for (name, times) in &state.disturbances {
        table.add_row([name, times.to_string().as_str()]);
    }
    let failed = state.failed_starts.to_string();
    table.add_row([
        "a pod's start failed while no agent ran, and was repeated",
        &failed,
    ]);
    table
}

/// A value of a resource with its unit.
fn shown(resource: Resource, value: f64) -> String {
    if resource.is_bytes() {
        format!("{:.2} MB", value / 1e6)
    } else {
        value.to_string()
    }
}

/// The machine, in a few words.
fn machine() -> String {
    let kernel = uname().map_or_else(
        |_| "an unknown kernel".to_owned(),
        |name| format!("Linux {}", name.release().to_string_lossy()),
    );
    let processors = thread::available_parallelism().map_or(0, usize::from);
    let memory = sysinfo().map_or(0, |info| info.ram_total() >> 30);
    format!("{kernel} with {processors} processors and {memory} GiB of memory")
}
