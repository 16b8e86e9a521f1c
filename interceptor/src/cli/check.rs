//! `interceptor check`

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::output::{Format, lines, table};
use crate::{
    check::{self, Probe},
    stdio,
};

/// Check whether interception works on this machine, and what to do if not
///
/// Tests every kernel feature and privilege that attach requires, in a temporary cgroup and network
/// namespace. Exits with 0 if everything is available, with 1 if not.
#[derive(Args)]
pub(super) struct Check {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Check {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let probes = check::run();
        stdio::print(&self.output.render(&probes, |probes| text(probes))?)?;
        Ok(if probes.iter().all(|probe| probe.ok) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn text(probes: &[Probe]) -> Result<String> {
    let mut table = table(["REQUIREMENT", "", "PROBLEM AND REMEDY"]);
    for probe in probes {
        let state = if probe.ok { "ok" } else { "MISSING" };
        let advice = [&probe.problem, &probe.remedy].map(|text| text.as_deref().unwrap_or(""));
        table.add_row([probe.feature.as_str(), state, advice.join("\n").trim()]);
    }
    let mut text = lines(table);
    let missing = probes.iter().filter(|probe| !probe.ok).count();
    if missing == 0 {
        writeln!(text, "Interception works on this machine.")?;
    } else {
        writeln!(
            text,
            "Interception does not work on this machine: {missing} of the above requirements are missing."
        )?;
    }
    Ok(text)
}
