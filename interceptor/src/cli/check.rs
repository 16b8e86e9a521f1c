//! `interceptor check`

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::output::{Format, json, table};
use crate::{
    check::{self, Probe},
    stdio,
};

/// Tell whether interception will work on this machine, and what to do if not
///
/// Every feature of the kernel and every privilege that attach needs is tried out, in a cgroup and
/// a network namespace of its own. Exit code 0 if all is there, 1 if not.
#[derive(Args)]
pub(super) struct Check {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Check {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let probes = check::run();
        stdio::print(&match self.output {
            Format::Json => json(&probes)?,
            Format::Text => text(&probes)?,
        })?;
        Ok(if probes.iter().all(|probe| probe.ok) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn text(probes: &[Probe]) -> Result<String> {
    let mut table = table(["NEEDED", "", "PROBLEM AND REMEDY"]);
    for probe in probes {
        let state = if probe.ok { "ok" } else { "MISSING" };
        let advice = [&probe.problem, &probe.remedy].map(|text| text.as_deref().unwrap_or(""));
        table.add_row([probe.feature.as_str(), state, advice.join("\n").trim()]);
    }
    let mut text = format!("{table}\n");
    let missing = probes.iter().filter(|probe| !probe.ok).count();
    if missing == 0 {
        writeln!(text, "Interception will work here.")?;
    } else {
        writeln!(
            text,
            "Interception will not work here: {missing} of the above are missing."
        )?;
    }
    Ok(text)
}
