//! Runs of the BPF programs, and the events that they could not write, read at each scrape.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use tracing::debug;

use crate::bpf::{
    events,
    pins::Pins,
    program_statistics::{self, ProgramStatistics},
};

/// Reads the kernel's counters at each scrape.
#[derive(Debug, Default)]
pub(in crate::agent) struct ProgramMetrics {
    runs: Mutex<RunTotals>,
}

impl Collector for ProgramMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // If the read fails, the other metrics are still reported.
        let totals = self.totals().unwrap_or_else(|error| {
            debug!("cannot read the statistics of the BPF programs: {error:#}");
            BTreeMap::new()
        });
        let help = "Runs of the BPF programs, while kernel.bpf_stats_enabled is 1";
        let mut metric = encoder.encode_descriptor("bpf_runs", help, None, MetricType::Counter)?;
        for (name, total) in &totals {
            let labels = [("program", name.as_str())];
            ConstCounter::new(total.runs).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Time that the BPF programs ran, while kernel.bpf_stats_enabled is 1";
        let name = "bpf_run_seconds";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (name, total) in &totals {
            let labels = [("program", name.as_str())];
            ConstCounter::new(total.time.as_secs_f64()).encode(metric.encode_family(&labels)?)?;
        }
        encode_lost(encoder)
    }
}

impl ProgramMetrics {
    /// Nothing while the kernel does not count: numbers that stand still would look like programs that
    /// do not run.
    fn totals(&self) -> Result<BTreeMap<String, Total>> {
        if !program_statistics::are_counted()? {
            return Ok(BTreeMap::new());
        }
        let programs = program_statistics::read(&Pins::new())?;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(runs.update(programs))
    }
}

fn encode_lost(mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Flows of observers that were lost because the buffer of the BPF programs was full";
    let metric = encoder.encode_descriptor("events_lost", help, None, MetricType::Counter)?;
    match events::lost(&Pins::new()) {
        Ok(lost) => ConstCounter::new(lost).encode(metric),
        Err(error) => {
            debug!("cannot read the number of lost events: {error:#}");
            Ok(())
        }
    }
}

/// The runs of all programs of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    runs: u64,
    time: Duration,
}

impl Total {
    fn add(&mut self, program: &ProgramStatistics) {
        self.runs += program.runs;
        self.time += program.run_time;
    }
}

/// Totals that do not decrease when a program is unloaded, such as the one that each pod has.
#[derive(Debug, Default)]
struct RunTotals {
    unloaded: BTreeMap<String, Total>,
    last: HashMap<u32, ProgramStatistics>,
}

impl RunTotals {
    fn update(&mut self, programs: Vec<ProgramStatistics>) -> BTreeMap<String, Total> {
        let now: HashMap<_, _> = programs
            .into_iter()
            .map(|program| (program.id, program))
            .collect();
        for (id, program) in &self.last {
            if !now.contains_key(id) {
                add(&mut self.unloaded, program);
            }
        }
        let mut totals = self.unloaded.clone();
        for program in now.values() {
            add(&mut totals, program);
        }
        self.last = now;
        totals
    }
}

fn add(totals: &mut BTreeMap<String, Total>, program: &ProgramStatistics) {
    totals.entry(program.name.clone()).or_default().add(program);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u32, runs: u64) -> ProgramStatistics {
        ProgramStatistics {
            name: "icept_dispatch".to_owned(),
            id,
            verified_instructions: None,
            jit_bytes: 0,
            runs,
            run_time: Duration::from_nanos(runs * 100),
        }
    }

    #[test]
    fn totals_do_not_decrease_when_a_pod_ends() {
        let mut totals = RunTotals::default();
        let mut runs = |programs| totals.update(programs)["icept_dispatch"];
        assert_eq!(runs(vec![program(1, 10), program(2, 5)]).runs, 15);
        assert_eq!(runs(vec![program(2, 7)]).runs, 17);
        let total = Total {
            runs: 20,
            time: Duration::from_micros(2),
        };
        assert_eq!(runs(vec![program(2, 8), program(3, 2)]), total);
    }
}
