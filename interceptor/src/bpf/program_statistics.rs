//! The kernel's statistics of our programs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use serde::{Serialize, Serializer};

use super::{link, pins, pins::Pins};

/// The kernel counts runs while this file has 1.
const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProgramStatistics {
    pub name: String,
    pub id: u32,
    /// Instructions that the verifier processed; unknown before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// The size of the machine code.
    pub jit_bytes: u32,
    /// The number of runs while the kernel counted them.
    pub runs: u64,
    /// Their total duration.
    #[serde(rename = "run_time_ns", serialize_with = "nanoseconds")]
    pub run_time: Duration,
}

impl ProgramStatistics {
    fn new(info: &ProgramInfo) -> Self {
        Self {
            name: info.name_as_str().unwrap_or_default().to_owned(),
            id: info.id(),
            verified_instructions: info.verified_instruction_count(),
            jit_bytes: info.size_jitted(),
            runs: info.run_count(),
            run_time: info.run_time(),
        }
    }
}

fn nanoseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_nanos())
}

/// Whether the kernel counts runs. Counting costs each run some nanoseconds.
pub(crate) fn are_counted() -> Result<bool> {
    let text = fs::read_to_string(SYSCTL).with_context(|| format!("cannot read {SYSCTL}"))?;
    Ok(text.trim() == "1")
}

/// The statistics of all programs that are pinned, or attached by pinned links.
pub(crate) fn read(pins: &Pins) -> Result<Vec<ProgramStatistics>> {
    let ours = ids(pins)?;
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    // A program can be unloaded while all are listed.
    let loaded = loaded_programs().filter_map(Result::ok);
    let ours = loaded.filter(|program| ours.contains(&program.id()));
    Ok(ours.map(|info| ProgramStatistics::new(&info)).collect())
}

fn ids(pins: &Pins) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for build in pins::names_in(&pins.programs())? {
        let programs = files_in(&pins.programs().join(build))?;
        ids.extend(
            programs
                .iter()
                .filter_map(|pin| Some(ProgramInfo::from_pin(pin).ok()?.id())),
        );
    }
    for pin in links(pins)? {
        ids.extend(link::program_id(&pin).ok());
    }
    Ok(ids)
}

/// The pins of all links.
pub(crate) fn links(pins: &Pins) -> Result<Vec<PathBuf>> {
    let cgroups = pins.cgroup_ids()?.into_iter().map(|id| pins.cgroup(id));
    let namespaces = pins.netns_cookies()?.into_iter();
    let namespaces = namespaces.map(|cookie| pins.netns(cookie));
    let mut links = Vec::new();
    for dir in cgroups.chain(namespaces) {
        links.extend(files_in(&dir)?);
    }
    Ok(links)
}

/// The pins in a directory, without the directories that mark interfaces.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let names = pins::names_in(dir)?.into_iter();
    let paths = names.map(|name| dir.join(name));
    Ok(paths.filter(|path| !path.is_dir()).collect())
}
