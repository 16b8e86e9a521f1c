//! The machine of a run.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::utsname::uname,
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A machine and its software versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    /// Its processor's model.
    pub processor: String,
    /// The number of processors.
    pub processors: usize,
    /// The size of its memory.
    pub memory: String,
    /// `uname`
    pub kernel: String,
    /// The CPU vulnerability mitigations that affect the cost of system calls.
    pub mitigations: Vec<String>,
    /// The load averages at the start, over one, five and fifteen minutes.
    pub load: String,
    /// Versions of programs.
    pub versions: Vec<String>,
}

impl Environment {
    /// Of this machine, now.
    pub fn read() -> Result<Self> {
        let name = uname()?;
        let kernel = format!(
            "{} {} {}",
            name.sysname().display(),
            name.release().display(),
            name.machine().display()
        );
        Ok(Self {
            processor: line_of("/proc/cpuinfo", "model name")?,
            processors: cpus()?.len(),
            memory: line_of("/proc/meminfo", "MemTotal")?,
            kernel,
            mitigations: mitigations(),
            load: fs::read_to_string("/proc/loadavg")?.trim_end().to_owned(),
            versions: versions(),
        })
    }
}

/// The processors that this process may use.
pub(super) fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let is_ours = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    Ok((0..CpuSet::count()).filter(is_ours).collect())
}

fn line_of(path: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.trim() == name);
    Ok(found.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    ))
}

fn mitigations() -> Vec<String> {
    ["spectre_v2", "retbleed", "meltdown"]
        .into_iter()
        .filter_map(|name| {
            let path = format!("/sys/devices/system/cpu/vulnerabilities/{name}");
            let state = fs::read_to_string(path).ok()?;
            Some(format!("{name}: {}", state.trim_end()))
        })
        .collect()
}

fn versions() -> Vec<String> {
    let envoy = env::var_os("ENVOY_BIN").map(PathBuf::from);
    [
        ("interceptor", Some(interceptor::binary())),
        ("iptables", Some("iptables-restore".into())),
        ("envoy", envoy),
        ("wrk", Some("wrk".into())),
    ]
    .into_iter()
    .filter_map(|(name, program)| Some(format!("{name}: {}", version(program?)?)))
    .collect()
}

/// The first line of a program's version output, without its path.
fn version(program: PathBuf) -> Option<String> {
    // Some exit with an error.
    let output = output(bounded(program).arg("--version"), "").ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.is_empty())?;
    let version = line
        .rsplit_once("version: ")
        .map_or(line, |(_, version)| version);
    Some(version.to_owned())
}
