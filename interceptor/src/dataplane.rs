//! Attaches and detaches pods, one or many from one process, and reads which ones are attached.
//!
//! What all pods share is opened once and reused while it is still pinned, because other commands may
//! replace it in between. Each change holds the machine-wide lock.

pub mod attach;
pub mod attach_points;
pub(crate) mod coverage;
pub(crate) mod detach;
mod listeners;
mod named;
mod policy_entries;
pub(crate) mod record;
pub(crate) mod registry;
mod shared;
pub mod steps;
mod sweep;
mod upgrade;
mod uplinks;

use std::time::Duration;

use anyhow::Result;
use interceptor_ebpf::NetnsCookie;
use tracing::warn;

use self::{
    attach::{AttachSpec, Attached, NetworkSource, Progress},
    detach::{
        Detached,
        draining::{self, Draining},
    },
    record::Record,
    registry::{AttachedPod, Existing, attached, open_attached, open_by_process, open_by_record},
    shared::SharedState,
};
use crate::{
    bpf::{
        maps::Maps,
        other_builds::OtherBuilds,
        pins::{self, Pins},
    },
    host::{self, Lock},
    netns::{Netns, route_limits::Limit},
};

/// How long the cleanup of a sandbox waits for another command: the container runtime waits for it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The interception on this machine.
#[derive(Default)]
pub struct Dataplane {
    pins: Pins,
    shared: Option<SharedState>,
}

impl Dataplane {
    /// Changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks out other commands, and upgrades what another build has pinned.
    fn lock(&mut self) -> Result<Lock> {
        let lock = host::lock()?;
        self.upgrade()?;
        Ok(lock)
    }

    /// Upgrades what another build has pinned, pod by pod, before every change.
    fn upgrade(&mut self) -> Result<()> {
        if upgrade::run(&self.pins)? {
            self.shared = None;
            self.finish(true)?;
        }
        Ok(())
    }

    /// Why the copied routes of `netns` are incomplete, if it is attached and they are.
    pub fn limits(&self, netns: &Netns) -> Result<Vec<Limit>> {
        let existing = self.existing(netns.cookie())?;
        Ok(existing
            .map(|existing| existing.record.limits)
            .unwrap_or_default())
    }

    /// Runs one step of an attach. Requires the lock.
    fn change(&mut self, wanted: &AttachSpec<'_>, source: NetworkSource) -> Result<Progress> {
        self.begin()?;
        let result = wanted.netns.enter(|| {
            let shared = SharedState::current(&mut self.shared, &self.pins)?;
            wanted.apply(&self.pins, shared, source)
        });
        match &result {
            Ok(Progress::Done(Attached::Replaced)) => self.finish(false)?,
            Ok(_) => self.pins.finish_change()?,
            Err(_) => {
                // The first error is returned.
                if let Err(error) = self.undo_change(wanted.netns) {
                    warn!("cannot undo a failed change: {error:#}");
                }
            }
        }
        result
    }

    /// Completes a change: removes what is no longer needed.
    fn finish(&mut self, unfinished: bool) -> Result<()> {
        sweep::sweep(&self.pins, &mut self.shared, unfinished)
    }

    /// Removes what a failed change has added.
    fn undo_change(&mut self, netns: &Netns) -> Result<()> {
        if self.existing(netns.cookie())?.is_none() {
            detach::undo(&self.pins, netns)?;
        }
        self.finish(true)
    }

    /// Starts a change, after removing what a killed command has left behind.
    fn begin(&mut self) -> Result<()> {
        if self.pins.exist()? && !Maps::are_complete(&self.pins.maps())? {
            // Without all pins, no command can open the maps of the programs.
            self.pins.remove_all()?;
        }
        if self.pins.begin_change()? {
            self.shared = None;
            self.finish(true)?;
            self.pins.begin_change()?;
        }
        Ok(())
    }

    /// Whether `netns` is attached.
    pub fn is_attached(&self, netns: &Netns) -> Result<bool> {
        let existing = self.existing(netns.cookie())?;
        Ok(existing.is_some_and(|existing| !existing.policy.is_draining()))
    }

    fn existing(&self, netns: NetnsCookie) -> Result<Option<Existing>> {
        match &self.shared {
            Some(shared) if shared.is_current(&self.pins) => Existing::read(&shared.maps, netns),
            _ => match Maps::open_if_complete(&self.pins.maps())? {
                Some(maps) => Existing::read(&maps, netns),
                None => Ok(None),
            },
        }
    }

    /// Detaches `netns`: each connection is captured for all of its life, or not at all.
    pub fn detach(&mut self, netns: &Netns) -> Result<Detached> {
        let draining = self.drain(netns)?;
        draining::wait(draining.as_slice());
        self.remove(netns)
    }

    fn drain<'a>(&mut self, netns: &'a Netns) -> Result<Option<Draining<'a>>> {
        let _lock = self.lock()?;
        match Maps::open_if_complete(&self.pins.maps())? {
            Some(mut maps) => Draining::begin(&self.pins, &mut maps, netns),
            None => Ok(None),
        }
    }

    /// Detaches `netns` at once, for callers that know that no process in it connects any more.
    pub fn remove(&mut self, netns: &Netns) -> Result<Detached> {
        let _lock = self.lock()?;
        if !self.pins.exist()? {
            return detach::undo(&self.pins, netns);
        }
        let unfinished = self.pins.begin_change()?;
        let detached = detach::undo(&self.pins, netns)?;
        self.finish(unfinished)?;
        Ok(detached)
    }

    /// Cleans up without an agent when the sandbox with `netns` is deleted: detaches it, unless processes
    /// are left in it, and sweeps. Does nothing if another build has pinned anything: a cleanup does not
    /// upgrade.
    pub fn end_sandbox(&mut self, netns: Option<&Netns>) -> Result<()> {
        if !self.pins.exist()? {
            return Ok(());
        }
        let _lock = host::lock_within(LOCK_TIMEOUT)?;
        if !OtherBuilds::find(&self.pins)?.is_empty() {
            return Ok(());
        }
        let unfinished = self.pins.begin_change()?;
        if let Some(netns) = netns
            && pins::exists(&self.pins.netns(netns.cookie()))?
            && coverage::is_empty(netns)?
        {
            detach::undo(&self.pins, netns)?;
        }
        self.finish(unfinished)
    }

    /// Detaches every network namespace and removes all pins. Returns how many namespaces there were.
    pub fn detach_all(&mut self) -> Result<usize> {
        // All pods drain at the same time.
        let pods = self.find_current()?;
        let mut draining = Vec::new();
        for netns in &pods {
            draining.extend(self.drain(netns)?);
        }
        draining::wait(&draining);
        self.remove_all()
    }

    /// Opens every attached network namespace that can be found. Returns none if the upgrade from
    /// another build fails.
    fn find_current(&mut self) -> Result<Vec<Netns>> {
        let _lock = host::lock()?;
        if self.upgrade().is_err() {
            // `remove_all` logs the error.
            return Ok(Vec::new());
        }
        let Some(maps) = Maps::open_if_complete(&self.pins.maps())? else {
            return Ok(Vec::new());
        };
        let attached = attached(&maps)?.into_iter();
        let open = |(cookie, policy)| open_attached(&self.pins, &maps, cookie, policy);
        Ok(attached.filter_map(open).collect())
    }

    fn remove_all(&mut self) -> Result<usize> {
        let _lock = host::lock()?;
        if let Err(error) = self.upgrade() {
            warn!("{error:#}");
            return self.force_remove();
        }
        let mut count = 0;
        if let Some(mut maps) = Maps::open_if_complete(&self.pins.maps())? {
            for (cookie, policy) in attached(&maps)? {
                match open_attached(&self.pins, &maps, cookie, policy) {
                    Some(netns) => detach::undo(&self.pins, &netns).map(drop)?,
                    None => detach::remove_netns(&self.pins, &mut maps, cookie)?,
                }
                count += 1;
            }
        }
        self.shared = None;
        self.pins.remove_all()?;
        Ok(count)
    }

    /// The same if the upgrade from another build fails: detaches the pods that can be found without
    /// reading its maps.
    fn force_remove(&mut self) -> Result<usize> {
        let mut count = 0;
        for netns in self.find_attached()? {
            match detach::clear(&self.pins, &netns) {
                Ok(()) => count += 1,
                Err(error) => warn!("{error:#}"),
            }
        }
        self.shared = None;
        self.pins.remove_all()?;
        Ok(count)
    }

    /// Opens every network namespace that any build has attached and that can be found: by its record,
    /// if the maps can be opened, or by a process in it.
    fn find_attached(&self) -> Result<Vec<Netns>> {
        let maps = Maps::open(&self.pins.maps()).ok();
        let other_builds = OtherBuilds::find(&self.pins)?.attached(&self.pins);
        let own = maps.as_ref().map(attached);
        let policies: Vec<_> = [Some(other_builds), own]
            .into_iter()
            .flatten()
            .filter_map(|policies| policies.inspect_err(|error| warn!("{error:#}")).ok())
            .flatten()
            .collect();
        let open = |cookie: NetnsCookie| {
            let own = policies.iter().filter(|(netns, _)| *netns == cookie);
            let by_record = |(_, policy): &(_, _)| open_by_record(maps.as_ref()?, cookie, *policy);
            let by_record = own.rev().find_map(by_record);
            by_record.or_else(|| open_by_process(&self.pins, cookie))
        };
        let cookies = self.pins.netns_cookies()?;
        Ok(cookies.into_iter().filter_map(open).collect())
    }

    /// Every attached pod. Includes deleted network namespaces until the next sweep.
    pub fn attached(&mut self) -> Result<Vec<AttachedPod>> {
        let _lock = self.lock()?;
        let Some(maps) = Maps::open_if_complete(&self.pins.maps())? else {
            return Ok(Vec::new());
        };
        attached(&maps)?
            .into_iter()
            .map(|(netns, policy)| {
                let record = Record::load(&maps, policy)?;
                Ok(AttachedPod { netns, record })
            })
            .collect()
    }

    /// Removes what is no longer needed: the state of deleted network namespaces, links to cgroups that
    /// no pod is attached to, and everything if no pod is left.
    pub fn sweep(&mut self) -> Result<()> {
        let _lock = self.lock()?;
        self.sweep_locked()
    }

    fn sweep_locked(&mut self) -> Result<()> {
        if self.pins.exist()? {
            let unfinished = self.pins.begin_change()?;
            self.finish(unfinished)?;
        }
        Ok(())
    }
}
