//! The resources that Interceptor uses, sampled in quiet moments: an agent is ready, no table is full of
//! foreign entries, and no pod comes or goes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use interceptor_testkit::bpf::{self, pins};

use crate::{
    agents::{Agents, Build},
    growth::{Sample, Tolerance},
};

/// A number that must not grow while the same build's agent runs: another build may have more programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// The agent's resident memory.
    Memory,
    /// The agent's open files.
    Files,
    /// The pinned maps.
    Maps,
    /// The kernel's memory for these.
    MapMemory,
    /// The pinned programs.
    Programs,
    /// The pinned links.
    Links,
    /// All pins, and their directories.
    Pins,
}

impl Resource {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "agent's resident memory",
            Self::Files => "agent's open files",
            Self::Maps => "maps",
            Self::MapMemory => "memory of the maps in the kernel",
            Self::Programs => "programs",
            Self::Links => "links",
            Self::Pins => "pins, with their directories",
        }
    }

    /// Whether it is a number of bytes.
    pub(crate) const fn is_bytes(self) -> bool {
        matches!(self, Self::Memory | Self::MapMemory)
    }

    /// An allocator does not return all that is freed, connections to the API server come and go, maps'
    /// memory depends on their entries, and some programs are loaded when they are first needed.
    pub(crate) const fn tolerance(self) -> Tolerance {
        let (ratio, absolute, samples) = match self {
            Self::Memory => (0.2, 2.0 * 1024.0 * 1024.0, 3),
            Self::Files => (0.25, 8.0, 3),
            Self::MapMemory => (0.02, 64.0 * 1024.0, 3),
            Self::Programs | Self::Pins => (0.0, 2.0, 1),
            Self::Maps | Self::Links => return Tolerance::NONE,
        };
        Tolerance {
            ratio,
            absolute,
            samples,
        }
    }
}

/// All samples, with the times at which they were taken.
#[derive(Debug)]
pub(crate) struct Samples {
    values: BTreeMap<(Resource, Build), Vec<(Duration, f64)>>,
    first: Option<Duration>,
    end: Duration,
}

impl Samples {
    /// None yet; the run ends at the time `end`.
    pub(crate) const fn new(end: Duration) -> Self {
        Self {
            values: BTreeMap::new(),
            first: None,
            end,
        }
    }

    /// Adds a sample of every resource.
    pub(crate) fn add(&mut self, at: Duration, agents: &Agents<'_>) -> Result<()> {
        self.first.get_or_insert(at);
        let pinned = Pinned::read()?;
        let values = [
            (Resource::Memory, number(agents.memory()?)),
            (Resource::Files, count(agents.open_files()?)),
            (Resource::Maps, count(pinned.maps)),
            (Resource::MapMemory, number(pinned.map_memory)),
            (Resource::Programs, count(pinned.programs)),
            (Resource::Links, count(pinned.links)),
            (Resource::Pins, count(pinned.all)),
        ];
        for (resource, value) in values {
            let samples = self.values.entry((resource, agents.build)).or_default();
            samples.push((at, value));
        }
        Ok(())
    }

    /// The samples of every resource, by the agent's build.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Resource, Build, Vec<Sample>)> {
        self.values.iter().map(|((resource, build), values)| {
            let sample = |(at, value): &(Duration, f64)| Sample {
                part: self.part(*at),
                value: *value,
            };
            (*resource, *build, values.iter().map(sample).collect())
        })
    }

    /// The part of the time from the first sample to the end.
    fn part(&self, at: Duration) -> f64 {
        let first = self.first.unwrap_or_default();
        let whole = self.end.saturating_sub(first).as_secs_f64();
        let part = at.saturating_sub(first).as_secs_f64() / whole;
        // The last disturbance may end later.
        if part.is_finite() { part.min(1.0) } else { 1.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "less than 2^52")]
const fn number(number: u64) -> f64 {
    number as f64
}

fn count(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

/// What is pinned on the soak's bpffs.
#[derive(Debug, Default)]
struct Pinned {
    maps: usize,
    map_memory: u64,
    programs: usize,
    links: usize,
    all: usize,
}

impl Pinned {
    fn read() -> Result<Self> {
        let dir = pins::dir();
        let below = |part: &str| files_below(&dir.join(part));
        let maps = below("maps")?;
        let map_memory = maps.iter().map(|pin| memory_of(pin)).sum::<Result<u64>>()?;
        Ok(Self {
            maps: maps.len(),
            map_memory,
            programs: below("programs")?.len(),
            links: below("cgroups")?.len() + below("netns")?.len(),
            all: pins::entries_below(&dir)?.len(),
        })
    }
}

/// The kernel's memory for a pinned map: 0 if it has just been deleted.
fn memory_of(pin: &Path) -> Result<u64> {
    let map = match bpf::open(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        map => map?,
    };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let memory = line.context("a map has no memlock in its fdinfo")?;
    Ok(memory.trim().parse()?)
}

/// What the pins say about the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pods {
    /// The number of network namespaces with pins.
    pub(crate) attached: usize,
    /// Whether a change is in progress, or was not completed: also links of other pods may exist then.
    pub(crate) is_changing: bool,
}

impl Pods {
    pub(crate) fn read() -> Result<Self> {
        let dir = pins::dir();
        let namespaces = pins::entries_below(&dir.join("netns"))?;
        Ok(Self {
            attached: namespaces.iter().filter(|path| path.is_dir()).count(),
            is_changing: dir.join("unfinished").try_exists()?,
        })
    }
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = pins::entries_below(dir)?;
    entries.retain(|path| !path.is_dir());
    Ok(entries)
}
