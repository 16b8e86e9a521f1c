//! `cargo xtask bench`: the cost of interception, compared in one run with no interception at all
//! and with Istio's rules in the kernel's own iptables. (The cost of injection: `injection`.)
//!
//! There are three identical pods. Every workload runs in short rounds, in which the contestants
//! take turns in another order each time; reported are ratios within a round, so that whatever
//! slows the machine down slows all of them down. Every pod must first prove that it does what it
//! claims: numbers of connections that were not captured are worth nothing.

mod charts;
mod contestant;
mod environment;
pub mod injection;
mod load;
mod markdown;
mod pod;
mod process;
mod results;
mod rounds;
mod scale;
mod summary;
mod table;
mod targets;
mod workloads;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
pub use contestant::Contestant;
pub use environment::Environment;
use interceptor_testkit::machine;
pub use load::{LOAD, run as load};
pub use pod::{Direction, Pod, stock};
pub use results::{Ratio, Results, Row, Section, Unit, Value};
pub use scale::Scale;
pub use summary::Summary;
pub use workloads::Workload;

/// The extent of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number and duration of measurements.
    pub scale: Scale,
    /// The workloads to run, in the order of [`Workload::ALL`].
    pub workloads: Vec<Workload>,
}

/// Measures. `keep` gets the results so far after each workload, in case a long run fails late.
pub fn run(options: &Options, keep: impl Fn(&Results) -> Result<()>) -> Result<Results> {
    let scale = &options.scale;
    // A full run has the machine to itself: other tests would affect the numbers.
    let _alone = if scale.is_quick {
        None
    } else {
        Some(machine::exclusive()?)
    };
    let _beside = if scale.is_quick {
        Some(machine::shared()?)
    } else {
        None
    };
    let mut results = Results {
        is_quick: scale.is_quick,
        environment: Environment::read()?,
        targets: targets::judge(&[]),
        sections: Vec::new(),
    };
    for workload in Workload::ALL {
        if options.workloads.contains(&workload) {
            eprintln!("bench: {}", workload.title());
            let section = workload.run(scale);
            results
                .sections
                .push(section.with_context(|| workload.title())?);
            results.targets = targets::judge(&results.sections);
            keep(&results)?;
        }
    }
    Ok(results)
}

/// Writes `results.json`, `README.md` and the charts into a directory, which is created.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    let shown = || dir.display().to_string();
    fs::create_dir_all(dir).with_context(shown)?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    fs::write(dir.join("results.json"), json).with_context(shown)?;
    for chart in charts::of(results) {
        let svg = chart.draw().with_context(|| chart.name.clone())?;
        fs::write(dir.join(format!("{}.svg", chart.name)), svg).with_context(shown)?;
    }
    fs::write(dir.join("README.md"), markdown::page(results)).with_context(shown)
}

/// The terminal output: the targets and their verdicts.
#[must_use]
pub fn verdicts(results: &Results) -> String {
    table::draw(&results.targets)
}
