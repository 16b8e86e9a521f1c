//! `cargo xtask bench --injection`: the speed of sidecar injection: of the function, of the command,
//! and of the webhook under load over TLS.
//!
//! Load has a schedule: a request is sent when it is due, whether or not earlier ones have been
//! answered, and its time counts from then. So a webhook that pauses is measured as its clients
//! would see it.

mod command;
mod configuration;
mod function;
mod latency;
mod load;
mod page;
mod pods;
mod targets;
mod webhook;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use self::configuration::{Sidecar, Template};
use crate::{Environment, Section, targets::Target};

/// The extent of a run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Whether it is the short run.
    pub is_quick: bool,
    /// The rates of loads are divided by this.
    pub rate_divisor: u32,
    /// The duration of a load.
    pub load_seconds: u32,
    /// The pods that the function injects.
    pub injections: usize,
    /// How many times manifests are injected.
    pub commands: usize,
    /// The Deployments in the manifests.
    pub deployments: usize,
}

impl Scale {
    /// The run for the docs.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            is_quick: false,
            rate_divisor: 1,
            load_seconds: 60,
            injections: 2_000,
            commands: 5,
            deployments: 1_000,
        }
    }

    /// For CI.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            is_quick: true,
            rate_divisor: 1,
            load_seconds: 5,
            injections: 300,
            commands: 1,
            deployments: 1_000,
        }
    }

    /// The smallest run, which shows only that everything works, also on a busy machine.
    #[must_use]
    pub const fn smallest() -> Self {
        Self {
            rate_divisor: 20,
            load_seconds: 1,
            injections: 20,
            deployments: 20,
            ..Self::quick()
        }
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Whether it was short.
    pub is_quick: bool,
    /// The machine.
    pub environment: Environment,
    /// Where the template of Istio's sidecar comes from.
    pub template: String,
    /// The targets and their verdicts.
    pub targets: Vec<Target>,
    /// A section for each kind of measurement.
    pub sections: Vec<Section>,
}

/// Measures everything.
pub fn run(scale: &Scale) -> Result<Results> {
    let environment = Environment::read()?;
    let template = Template::find()?;
    let sidecars = [Sidecar::Template(template.clone()), Sidecar::Builtin];
    let mut sections = Vec::new();
    let measures: [(&str, Measure); 3] = [
        (targets::FUNCTION, function::run),
        (targets::COMMAND, command::run),
        (targets::LOAD, load::run),
    ];
    for (title, measure) in measures {
        eprintln!("bench: {title}");
        let section = measure(&sidecars, scale).context(title)?;
        sections.push(Section {
            title: title.to_owned(),
            ..section
        });
    }
    Ok(Results {
        is_quick: scale.is_quick,
        environment,
        template: template.description().to_owned(),
        targets: targets::judge(&sections),
        sections,
    })
}

type Measure = fn(&[Sidecar], &Scale) -> Result<Section>;

/// Writes `results.json` and `README.md` into a directory, which is created.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    let shown = || directory.display().to_string();
    fs::create_dir_all(directory).with_context(shown)?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    fs::write(directory.join("results.json"), json).with_context(shown)?;
    fs::write(directory.join("README.md"), page::page(results)).with_context(shown)
}

/// The terminal output: the targets and their verdicts.
#[must_use]
pub fn verdicts(results: &Results) -> String {
    page::table(&results.targets)
}
