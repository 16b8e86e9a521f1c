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
    attach::{AttachSpec, Attached, NetworkSource, Progress},
    coverage,
};
use crate::{
    cgroup::{Cgroup, Hierarchy},
    netns::Netns,
};

/// How often a large network is read because it has changed meanwhile. Attaching a pod anew changes it
/// twice.
const MAX_NETWORK_READS: u32 = 6;

/// Access to the dataplane for one step at a time.
pub trait DataplaneAccess {
    /// Has `work` done while nobody else of this process is at it.
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T>;
}

impl DataplaneAccess for Dataplane {
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        work(self)
    }
}

impl Dataplane {
    /// Attaches a pod. In force when this returns; if it fails, nothing has changed for the pod.
    pub fn attach(&mut self, wanted: &AttachSpec<'_>) -> Result<Attached> {
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
        wanted: &AttachSpec<'_>,
        hierarchy: &Hierarchy,
    ) -> Result<Attached> {
        let step = |dataplane: &mut Self, source| {
            coverage::check_covered(wanted.netns, wanted.places, hierarchy)?;
            let established = dataplane.change(wanted, source)?;
            if matches!(established, Progress::Done(_)) {
                dataplane.sweep_locked()?;
            }
            Ok(established)
        };
        in_steps(self, wanted.netns, step).map(|(attached, _)| attached)
    }
}

/// Attaches a pod. In force when this returns; if it fails, nothing has changed for the pod. Answers
/// how long it took, without the wait for other commands, too.
pub fn attach(
    access: &mut impl DataplaneAccess,
    wanted: &AttachSpec<'_>,
) -> Result<(Attached, Duration)> {
    in_steps(access, wanted.netns, |dataplane, source| {
        dataplane.change(wanted, source)
    })
}

/// Attaches `netns` as it is attached, which follows what has changed of its addresses and routes.
/// `None` if it is not attached. Answers how long it took, too.
pub fn refresh(
    access: &mut impl DataplaneAccess,
    netns: &Netns,
    hierarchy: &Hierarchy,
) -> Result<(Option<Attached>, Duration)> {
    in_steps(access, netns, |dataplane, source| {
        let existing = dataplane.existing(netns.cookie())?;
        // A pod that is being detached is not captured again.
        let Some(existing) = existing.filter(|existing| !existing.policy.is_draining()) else {
            return Ok(Progress::Done(None));
        };
        let places = existing.record.attach_points();
        let places = places.try_map(|place| Cgroup::open(hierarchy, Some(&place.path)))?;
        let wanted = AttachSpec {
            netns,
            places: &places,
            settings: &existing.record.settings,
            log: existing.policy.flags.contains(PolicyFlags::LOG),
            scan_listeners: false,
        };
        Ok(dataplane.change(&wanted, source)?.map(Some))
    })
}

/// Repeats `step` until it is done, and reads the network in between where it is to be read.
fn in_steps<T>(
    access: &mut impl DataplaneAccess,
    netns: &Netns,
    mut step: impl FnMut(&mut Dataplane, NetworkSource) -> Result<Progress<T>>,
) -> Result<(T, Duration)> {
    let mut took = Duration::ZERO;
    let mut source = NetworkSource::Small;
    let mut left = MAX_NETWORK_READS;
    loop {
        let now = mem::replace(&mut source, NetworkSource::Small);
        let established = access.access(|dataplane| {
            let _lock = dataplane.lock()?;
            let begun = Instant::now();
            let established = step(dataplane, now);
            took += begun.elapsed();
            established
        })?;
        let unread = match established {
            Progress::Unread(unread) => unread,
            Progress::Done(done) => return Ok((done, took)),
        };
        let begun = Instant::now();
        let network = match netns.run(|| unread.read()) {
            Ok(network) => network,
            Err(error) => {
                give_up(access, netns);
                return Err(error);
            }
        };
        took += begun.elapsed();
        left = left.saturating_sub(1);
        let is_last = left == 0;
        source = NetworkSource::Done { network, is_last };
    }
}

/// Takes away what the steps before have made. The first error is the one that tells.
fn give_up(access: &mut impl DataplaneAccess, netns: &Netns) {
    let undone = access.access(|dataplane| {
        let _lock = dataplane.lock()?;
        dataplane.undo_change(netns)
    });
    if let Err(error) = undone {
        warn!("cannot undo a failed change: {error:#}");
    }
}
