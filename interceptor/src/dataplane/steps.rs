//! Attaching a pod in steps. The machine-wide lock is held for each of them, but not while a large
//! network is read: a pod with many routes keeps no other waiting.

use std::{
    mem,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_ebpf::PolicyFlags;
use tracing::warn;

use super::{
    Dataplane,
    attach::{Attached, Attachment, Established, Reading},
    coverage,
};
use crate::{
    cgroup::{Cgroup, Hierarchy},
    netns::Netns,
};

/// How often a large network is read because it has changed meanwhile. Attaching a pod anew changes it
/// twice.
const READINGS: u32 = 6;

/// Access to the dataplane for one step at a time.
pub trait Turns {
    /// Has `work` done while nobody else of this process is at it.
    fn turn<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T>;
}

impl Turns for Dataplane {
    fn turn<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        work(self)
    }
}

impl Dataplane {
    /// Attaches a pod. In force when this returns; if it fails, nothing has changed for the pod.
    pub fn attach(&mut self, wanted: &Attachment<'_>) -> Result<Attached> {
        attach(self, wanted).map(|(attached, _)| attached)
    }

    /// Attaches `netns` as it is attached, which follows what has changed of its addresses and
    /// routes. `None` if it is not attached.
    pub fn refresh(&mut self, netns: &Netns, hierarchy: &Hierarchy) -> Result<Option<Attached>> {
        refresh(self, netns, hierarchy).map(|(attached, _)| attached)
    }

    /// The same as [`Self::attach`] for one pod of which nothing is known: first makes sure that no
    /// process of it is left out, and in the end tidies up.
    pub fn attach_checked(
        &mut self,
        wanted: &Attachment<'_>,
        hierarchy: &Hierarchy,
    ) -> Result<Attached> {
        let step = |dataplane: &mut Self, reading| {
            coverage::check_covered(wanted.netns, wanted.places, hierarchy)?;
            let established = dataplane.change(wanted, reading)?;
            if matches!(established, Established::Done(_)) {
                dataplane.tidy_locked()?;
            }
            Ok(established)
        };
        in_steps(self, wanted.netns, step).map(|(attached, _)| attached)
    }
}

/// Attaches a pod. In force when this returns; if it fails, nothing has changed for the pod. Answers
/// how long it took, without the wait for other commands, too.
pub fn attach(turns: &mut impl Turns, wanted: &Attachment<'_>) -> Result<(Attached, Duration)> {
    in_steps(turns, wanted.netns, |dataplane, reading| {
        dataplane.change(wanted, reading)
    })
}

/// Attaches `netns` as it is attached, which follows what has changed of its addresses and routes.
/// `None` if it is not attached. Answers how long it took, too.
pub fn refresh(
    turns: &mut impl Turns,
    netns: &Netns,
    hierarchy: &Hierarchy,
) -> Result<(Option<Attached>, Duration)> {
    in_steps(turns, netns, |dataplane, reading| {
        let before = dataplane.before(netns.cookie())?;
        // A pod that is being detached is not captured again.
        let Some(before) = before.filter(|before| !before.policy.is_draining()) else {
            return Ok(Established::Done(None));
        };
        let places = before.record.places();
        let places = places.try_map(|place| Cgroup::open(hierarchy, Some(&place.path)))?;
        let wanted = Attachment {
            netns,
            places: &places,
            settings: &before.record.settings,
            log: before.policy.flags.contains(PolicyFlags::LOG),
            looks_for_listeners: false,
        };
        Ok(dataplane.change(&wanted, reading)?.map(Some))
    })
}

/// Repeats `step` until it is done, and reads the network in between where it is to be read.
fn in_steps<T>(
    turns: &mut impl Turns,
    netns: &Netns,
    mut step: impl FnMut(&mut Dataplane, Reading) -> Result<Established<T>>,
) -> Result<(T, Duration)> {
    let mut took = Duration::ZERO;
    let mut reading = Reading::Small;
    let mut left = READINGS;
    loop {
        let now = mem::replace(&mut reading, Reading::Small);
        let established = turns.turn(|dataplane| {
            let _lock = dataplane.lock()?;
            let begun = Instant::now();
            let established = step(dataplane, now);
            took += begun.elapsed();
            established
        })?;
        let unread = match established {
            Established::Unread(unread) => unread,
            Established::Done(done) => return Ok((done, took)),
        };
        let begun = Instant::now();
        let network = match netns.run(|| unread.read()) {
            Ok(network) => network,
            Err(error) => {
                give_up(turns, netns);
                return Err(error);
            }
        };
        took += begun.elapsed();
        left = left.saturating_sub(1);
        let is_last = left == 0;
        reading = Reading::Done { network, is_last };
    }
}

/// Takes away what the steps before have made. The first error is the one that tells.
fn give_up(turns: &mut impl Turns, netns: &Netns) {
    let undone = turns.turn(|dataplane| {
        let _lock = dataplane.lock()?;
        dataplane.undo_change(netns)
    });
    if let Err(error) = undone {
        warn!("cannot undo a change that has failed: {error:#}");
    }
}
