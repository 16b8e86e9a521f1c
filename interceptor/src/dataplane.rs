//! What is attached on this machine, and changing it: for one pod, or for many from one process.
//!
//! What all pods share is opened once, and used for as long as it is what is pinned: other commands
//! may be at work meanwhile. Each change holds the machine-wide lock.

pub mod attach;
pub mod attach_points;
pub mod coverage;
pub mod detach;
mod listeners;
mod policy_entries;
pub mod record;
pub mod registry;
pub(crate) mod shared;
pub mod steps;
mod sweep;
pub(crate) mod upgrade;

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
    bpf::{maps::Maps, other_builds::OtherBuilds, pins::Pins},
    host::{self, Lock},
    netns::{Netns, route_limits::Limit},
};

/// How long a sandbox's end waits for another command: the runtime waits for it.
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

    /// Keeps other commands out, and takes over what another build has pinned.
    fn lock(&mut self) -> Result<Lock> {
        let lock = host::lock()?;
        self.take_over()?;
        Ok(lock)
    }

    /// Takes over what another build has pinned, pod by pod. Every change begins with it, and it is
    /// done at once if there is nothing.
    fn take_over(&mut self) -> Result<()> {
        if upgrade::take_over(&self.pins)? {
            self.shared = None;
            self.finish(true)?;
        }
        Ok(())
    }

    /// What the copied routes of `netns` cannot be relied on for, if it is attached.
    pub fn limits(&self, netns: &Netns) -> Result<Vec<Limit>> {
        let existing = self.existing(netns.cookie())?;
        Ok(existing
            .map(|existing| existing.record.limits)
            .unwrap_or_default())
    }

    /// Goes from what was before to what is to be, under the lock.
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
                // The first error is the one that tells.
                if let Err(error) = self.undo_change(wanted.netns) {
                    warn!("cannot undo a failed change: {error:#}");
                }
            }
        }
        result
    }

    /// Ends a change: takes away what nothing needs any more.
    fn finish(&mut self, unfinished: bool) -> Result<()> {
        sweep::sweep(&self.pins, &mut self.shared, unfinished)
    }

    /// Takes away what a change that has failed has made: nothing half-done stays.
    fn undo_change(&mut self, netns: &Netns) -> Result<()> {
        if self.existing(netns.cookie())?.is_none() {
            detach::undo(&self.pins, netns)?;
        }
        self.finish(true)
    }

    /// Begins a change, after what a command has left that was killed.
    fn begin(&mut self) -> Result<()> {
        if self.pins.exist() && !Maps::are_complete(&self.pins.maps()) {
            // Programs with maps that nobody can reach.
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

    /// Detaches `netns`: each connection is captured from end to end, or not at all.
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

    /// Detaches `netns` at once, for whoever knows that nobody in it makes connections any more.
    pub fn remove(&mut self, netns: &Netns) -> Result<Detached> {
        let _lock = self.lock()?;
        if !self.pins.exist() {
            return detach::undo(&self.pins, netns);
        }
        let unfinished = self.pins.begin_change()?;
        let detached = detach::undo(&self.pins, netns)?;
        self.finish(unfinished)?;
        Ok(detached)
    }

    /// Does the agent's work where there is none, when the sandbox that has `netns` ends: detaches it,
    /// unless processes are left in it, and tidies up. What another build has pinned is left alone: to
    /// take it over is not for whoever only cleans up.
    pub fn end_sandbox(&mut self, netns: Option<&Netns>) -> Result<()> {
        if !self.pins.exist() {
            return Ok(());
        }
        let _lock = host::lock_within(LOCK_TIMEOUT)?;
        if !OtherBuilds::find(&self.pins)?.is_empty() {
            return Ok(());
        }
        let unfinished = self.pins.begin_change()?;
        let kept_for = |netns: &&Netns| self.pins.netns(netns.cookie()).exists();
        if let Some(netns) = netns.filter(kept_for)
            && coverage::are_gone(netns)?
        {
            detach::undo(&self.pins, netns)?;
        }
        self.finish(unfinished)
    }

    /// Detaches every network namespace and removes everything of ours. Answers how many there were.
    pub fn detach_all(&mut self) -> Result<usize> {
        // All pods in one go, however many.
        let pods = self.find_current()?;
        let mut draining = Vec::new();
        for netns in &pods {
            draining.extend(self.drain(netns)?);
        }
        draining::wait(&draining);
        self.remove_all()
    }

    /// Opens every network namespace that is attached, and that can be found. None where another
    /// build's cannot be taken over.
    fn find_current(&mut self) -> Result<Vec<Netns>> {
        let _lock = host::lock()?;
        if self.take_over().is_err() {
            // Told when they are removed.
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
        if let Err(error) = self.take_over() {
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

    /// The same where another build's pods cannot be taken over: detaches those that can be found
    /// without reading its maps.
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

    /// Opens every network namespace that any build has attached, and that can be found: by its
    /// record, if the maps can be opened, or by a process that is in it.
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
            let named = policies.iter().filter(|(netns, _)| *netns == cookie);
            let by_record = |(_, policy): &(_, _)| open_by_record(maps.as_ref()?, cookie, *policy);
            let by_record = named.rev().find_map(by_record);
            by_record.or_else(|| open_by_process(&self.pins, cookie))
        };
        let cookies = self.pins.netns_cookies()?;
        Ok(cookies.into_iter().filter_map(open).collect())
    }

    /// What is attached. Network namespaces that are gone are among it until it is tidied up.
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

    /// Takes away what nothing needs any more: what is kept for network namespaces that are gone,
    /// links to cgroups that no pod is attached at, and with the last pod everything.
    pub fn sweep(&mut self) -> Result<()> {
        let _lock = self.lock()?;
        self.sweep_locked()
    }

    fn sweep_locked(&mut self) -> Result<()> {
        if self.pins.exist() {
            let unfinished = self.pins.begin_change()?;
            self.finish(unfinished)?;
        }
        Ok(())
    }
}
