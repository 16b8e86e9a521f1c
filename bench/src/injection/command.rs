//! `interceptor inject -f` of many manifests.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};
use interceptor_testkit::interceptor;
use tempfile::TempDir;

use super::{Scale, configuration::Sidecar, latency::milliseconds, pods};
use crate::{Row, Section, Unit};

pub(super) fn run(sidecars: &[Sidecar], scale: &Scale) -> Result<Section> {
    let directory = TempDir::new()?;
    let input = directory.path().join("input.yaml");
    fs::write(&input, pods::deployments(scale.deployments))?;
    let mut numbers = Vec::new();
    for sidecar in sidecars {
        let arguments = sidecar.arguments(directory.path())?;
        let times = (0..scale.commands).map(|_| inject(&input, &arguments, scale.deployments));
        numbers.push((
            sidecar.name().to_owned(),
            times.collect::<Result<Vec<_>>>()?,
        ));
    }
    Ok(Section {
        method: format!(
            "`interceptor inject -f` of one file with {} Deployments, {} times, from the start of \
             the process to its end. The output goes to a file, and is checked.",
            scale.deployments, scale.commands
        ),
        rows: vec![Row::new("all Deployments", Unit::Milliseconds, &numbers)],
        ..Section::default()
    })
}

fn inject(input: &Path, arguments: &[String], expected: usize) -> Result<f64> {
    let output = input.with_extension("injected");
    let mut command = Command::new(interceptor::binary());
    command.arg("inject").arg("-f").arg(input).args(arguments);
    command.stdout(File::create(&output)?).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    ensure!(status.success(), "`interceptor inject` failed: {status}");
    let text = fs::read_to_string(output)?;
    let injected = text.matches("sidecar.istio.io/status").count();
    ensure!(
        injected >= expected,
        "{injected} of {expected} were injected"
    );
    Ok(milliseconds(&took))
}
