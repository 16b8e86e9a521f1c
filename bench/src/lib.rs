//! `cargo xtask bench`: what interception costs, measured in one run against no interception at all
//! and against Istio's rules in the kernel's own iptables.
//!
//! Three pods are laid out alike. Every workload runs in short rounds, in each of which the
//! contestants take turns in another order; what is reported are ratios within a round, so that what
//! slows the machine down slows all of them. Every pod must first prove that it does what it
//! claims: no number is worth anything if the connections were not captured.

mod charts;
mod contestant;
mod environment;
mod load;
mod markdown;
mod pod;
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

/// What to measure, and where the results go.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much.
    pub scale: Scale,
    /// Which workloads, in the order of [`Workload::ALL`].
    pub workloads: Vec<Workload>,
}

/// Measures. `keep` is handed what there is after each workload: a long run that fails late has not
/// been for nothing.
pub fn run(options: &Options, keep: impl Fn(&Results) -> Result<()>) -> Result<Results> {
    let scale = &options.scale;
    // A full run is alone on the machine: other tests would be measured with it.
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

/// Writes `results.json`, `README.md` and the charts into a folder, which is made.
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

/// What is printed on a terminal: the targets and their verdicts.
#[must_use]
pub fn verdicts(results: &Results) -> String {
    table::draw(&results.targets)
}
