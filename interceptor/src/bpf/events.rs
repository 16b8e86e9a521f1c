//! Reads the events that the programs write for observers.
//!
//! The programs write while the time in `icept_observed` has not passed. A reader extends that time
//! while it runs, so a reader that is killed leaves nothing behind that costs anything.

use std::{fs::File, io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use interceptor_ebpf::Event;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};
use thiserror::Error;
use zerocopy::FromBytes as _;

use super::{
    layout::{self, EVENTS},
    pins::{self, Pins},
};

/// The limit of events in one call of [`EventReader::read`]: more than the buffer holds.
const MAX_EVENTS: usize = interceptor_ebpf::EVENT_BUFFER as usize / size_of::<Event>();

/// The map with the number of events that did not fit into the buffer.
const LOST: &str = "icept_lost";

/// Why the events cannot be read.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// No pod is captured, so there is no buffer.
    #[error("no pod is captured")]
    NoPod,
    /// There is one buffer for one reader.
    #[error(
        "another process reads the events of this node: only one can, unless the node agent runs, \
         which serves any number of observers"
    )]
    Taken,
    /// A system call failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The only reader of the events on this machine.
pub(crate) struct EventReader {
    events: RingBuf<MapData>,
    observed_until: Array<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    /// The events that were lost before this reader started.
    lost_before: u64,
    map: u32,
    _lock: Flock<File>,
}

impl EventReader {
    /// Opens the buffer. The programs write nothing until [`Self::extend`] is called.
    pub(crate) fn open(pins: &Pins) -> Result<Self, OpenError> {
        let dir = pins.maps();
        if !dir.join(layout::pin(EVENTS)).exists() {
            return Err(OpenError::NoPod);
        }
        let lock = lock(&dir)?;
        let map = id(&dir)?;
        let open = |name| open_map(&dir, name);
        let maps = || -> Result<_> {
            Ok((
                Map::RingBuf(open(EVENTS)?).try_into()?,
                Map::Array(open("icept_observed")?).try_into()?,
                Map::PerCpuArray(open(LOST)?).try_into()?,
            ))
        };
        let (events, observed_until, lost) = maps()?;
        let mut reader = Self {
            events,
            observed_until,
            lost,
            lost_before: 0,
            map,
            _lock: lock,
        };
        reader.discard();
        reader.lost_before = reader.lost_in_all()?;
        Ok(reader)
    }

    /// Whether the programs still write to this buffer. They use another one after the last pod was
    /// detached and one was attached again, or after an upgrade.
    pub(crate) fn is_current(&self, pins: &Pins) -> bool {
        id(&pins.maps()).is_ok_and(|map| map == self.map)
    }

    /// Makes the programs write events for `duration`.
    pub(crate) fn extend(&mut self, duration: Duration) -> Result<()> {
        let until = (now()? + duration).as_nanos();
        self.observe_until(u64::try_from(until).unwrap_or(u64::MAX))
    }

    /// Calls `each` with all events that the programs have written since the last call.
    pub(crate) fn read(&mut self, mut each: impl FnMut(&Event)) {
        for _ in 0..MAX_EVENTS {
            let Some(item) = self.events.next() else {
                return;
            };
            if let Ok(event) = Event::ref_from_bytes(&item) {
                each(event);
            }
        }
    }

    /// The number of events that did not fit into the buffer since this reader started.
    pub(crate) fn lost(&self) -> Result<u64> {
        Ok(self.lost_in_all()?.saturating_sub(self.lost_before))
    }

    fn lost_in_all(&self) -> Result<u64> {
        sum(&self.lost)
    }

    /// Discards what was written for an earlier reader.
    fn discard(&mut self) {
        self.read(|_| {});
    }

    fn observe_until(&mut self, time: u64) -> Result<()> {
        self.observed_until
            .set(0, time, 0)
            .context("cannot switch the events on or off")
    }
}

/// The number of events that did not fit into the buffer since it was created; 0 if there is none.
pub(crate) fn lost(pins: &Pins) -> Result<u64> {
    let dir = pins.maps();
    if !pins::exists(&dir.join(layout::pin(LOST)))? {
        return Ok(0);
    }
    sum(&Map::PerCpuArray(open_map(&dir, LOST)?).try_into()?)
}

fn sum(lost: &PerCpuArray<MapData, u64>) -> Result<u64> {
    let lost = lost.get(&0, 0).context("cannot read the lost events")?;
    Ok(lost.iter().sum())
}

fn open_map(dir: &Path, name: &'static str) -> Result<MapData> {
    let pin = dir.join(layout::pin(name));
    MapData::from_pin(&pin).with_context(|| format!("cannot open the map {}", pin.display()))
}

impl Drop for EventReader {
    fn drop(&mut self) {
        // If it fails, the programs stop when the time has passed.
        let _stopped = self.observe_until(0);
    }
}

/// The current time in the clock of [`Event::time`].
pub(crate) fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(now.into())
}

/// The kernel's ID of the buffer.
fn id(dir: &Path) -> Result<u32> {
    let pin = dir.join(layout::pin(EVENTS));
    let info = MapInfo::from_pin(&pin);
    let info = info.with_context(|| format!("cannot read the map info of {}", pin.display()))?;
    Ok(info.id())
}

/// Locks the maps' directory: the kernel releases the lock with the process.
fn lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let failed = |error: io::Error| {
        let text = format!("cannot lock {}", dir.display());
        OpenError::Failed(anyhow::Error::new(error).context(text))
    };
    let file = File::open(dir).map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(OpenError::Taken),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}
