//! Attaches a pod in steps. Each holds the machine-wide lock, but the lock is released while a large
//! network is read: a pod with many routes does not delay others.

use std::{
    mem,
    time::{Duration, Instant},
};

use anyhow::Result;
use tracing::warn;

use super::{
    Dataplane,
    attach::{AttachSpec, Attached, NetworkSource, Progress},
    attach_points::CgroupName,
    coverage,
};
use crate::{
    cgroup::{Cgroup, Hierarchy},
    netns::Netns,
};

/// How often a large network is read because it has changed in the meantime. The first attach of a pod
/// changes it twice.
const MAX_NETWORK_READS: u32 = 6;

/// Access to the dataplane for one step at a time.
pub trait DataplaneAccess {
    /// Runs `work` with exclusive access within this process.
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T>;
}

impl DataplaneAccess for Dataplane {
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        work(self)
    }
}

impl Dataplane {
    /// Attaches a pod. It is captured when this returns; if this fails, nothing has changed for the
    /// pod.
    pub fn attach(&mut self, wanted: &AttachSpec<'_>) -> Result<Attached> {
        attach(self, wanted).map(|(attached, _)| attached)
    }

    /// Attaches `netns` again with the same settings, which updates its addresses and routes. `None`
    /// if it is not attached.
    pub fn refresh(&mut self, netns: &Netns, hierarchy: &Hierarchy) -> Result<Option<Attached>> {
        refresh(self, netns, hierarchy).map(|(attached, _)| attached)
    }

    /// The same as [`Self::attach`], for a command: checks first that the attach points contain all
    /// processes of the pod, and sweeps at the end.
    pub fn attach_checked(
        &mut self,
        wanted: &AttachSpec<'_>,
        hierarchy: &Hierarchy,
    ) -> Result<Attached> {
        let step = |dataplane: &mut Self, source| {
            coverage::check_covered(wanted.netns, wanted.attach_points, hierarchy)?;
            let progress = dataplane.change(wanted, source)?;
            if matches!(progress, Progress::Done(_)) {
                dataplane.sweep_locked()?;
            }
            Ok(progress)
        };
        in_steps(self, wanted.netns, step).map(|(attached, _)| attached)
    }
}

/// See [`Dataplane::attach`]. Also returns how long it took, without the wait for other commands.
pub fn attach(
    access: &mut impl DataplaneAccess,
    wanted: &AttachSpec<'_>,
) -> Result<(Attached, Duration)> {
    in_steps(access, wanted.netns, |dataplane, source| {
        dataplane.change(wanted, source)
    })
}

/// See [`Dataplane::refresh`]. Also returns how long it took, without the wait for other commands.
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
        let recorded = existing.record.attach_points();
        let open = |cgroup: &CgroupName| Cgroup::open(hierarchy, Some(&cgroup.path));
        let attach_points = recorded.try_map(open)?;
        let wanted = AttachSpec {
            netns,
            pod: None,
            attach_points: &attach_points,
            settings: &existing.record.settings,
            scan_listeners: false,
        };
        Ok(dataplane.change(&wanted, source)?.map(Some))
    })
}

/// Repeats `step` until it is done, and reads the network in between if the step requires that.
fn in_steps<T>(
    access: &mut impl DataplaneAccess,
    netns: &Netns,
    mut step: impl FnMut(&mut Dataplane, NetworkSource) -> Result<Progress<T>>,
) -> Result<(T, Duration)> {
    let mut took = Duration::ZERO;
    let mut source = NetworkSource::ReadIfSmall;
    let mut left = MAX_NETWORK_READS;
    loop {
        let current = mem::replace(&mut source, NetworkSource::ReadIfSmall);
        let progress = access.access(|dataplane| {
            let _lock = dataplane.lock()?;
            let start = Instant::now();
            let progress = step(dataplane, current);
            took += start.elapsed();
            progress
        })?;
        let unread = match progress {
            Progress::Unread(unread) => unread,
            Progress::Done(done) => return Ok((done, took)),
        };
        let start = Instant::now();
        let network = match netns.run(|| unread.read()) {
            Ok(network) => network,
            Err(error) => {
                undo(access, netns);
                return Err(error);
            }
        };
        took += start.elapsed();
        left = left.saturating_sub(1);
        let is_last = left == 0;
        source = NetworkSource::AlreadyRead { network, is_last };
    }
}

/// Undoes the previous steps. Only logs an error, because the caller returns the first one.
fn undo(access: &mut impl DataplaneAccess, netns: &Netns) {
    let undone = access.access(|dataplane| {
        let _lock = dataplane.lock()?;
        dataplane.undo_change(netns)
    });
    if let Err(error) = undone {
        warn!("cannot undo a failed change: {error:#}");
    }
}
