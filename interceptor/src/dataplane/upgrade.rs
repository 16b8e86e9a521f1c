//! Upgrades what another build has pinned: a newer one, an older one, or one that was killed while it
//! upgraded from this build.
//!
//! Maps with the same definition are shared ([`crate::bpf::layout`]): stand-ins, listeners, the state
//! of every connection. Policies with another layout are compiled again, from their records, beside
//! the effective ones. Then the programs are replaced, each by one update of a link, in an order in
//! which every connection meets a program that can handle it. What is no longer used is removed last.
//!
//! ```text
//!  1  missing maps                     no program uses them yet
//!  2  programs, loaded and pinned      not attached
//!  3  policies, pod by pod             the other build's are still effective
//!  4  sockops                          registers listeners in this build's maps, for the ports there
//!  5  ports and open listeners         if needed: from here on these maps contain all of them
//!  6  names, replies, sk_lookup, interfaces
//!  7  connect, sendmsg                 from here on, this build's policies are effective
//!     interfaces, where the programs there are filters (before Linux 6.6)
//!  8  the other build's programs and maps are removed, of these its policies first
//! ```
//!
//! If this is killed after any step, the next command of either build completes or reverts it by the
//! same steps. Until step 7 all of the other build's policies exist, after it all of this one's.
//!
//! If a pod's network namespace cannot be opened by its path or by a process in it, all of this fails
//! before step 4: the other build's programs continue to handle the traffic of all pods.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use interceptor_ebpf::{NetnsCookie, PolicyId};
use tracing::info;

use super::{
    attach, listeners,
    record::Record,
    registry::{attached, open_attached, policy_of},
    shared::SharedState,
};
use crate::{
    bpf::{
        hooks,
        interface_hooks::{InterfaceHooks, Side},
        layout, link,
        other_builds::OtherBuilds,
        pins::Pins,
    },
    netns::{Netns, uplinks::node_netns},
};

/// How often, and at which interval, a network namespace that the kernel is deleting is opened.
const MAX_OPEN_ATTEMPTS: u32 = 40;
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Upgrades from other builds if anything of theirs is pinned, and returns whether it was. Requires the
/// lock, and is followed by a sweep.
pub(super) fn run(pins: &Pins) -> Result<bool> {
    let other_builds = OtherBuilds::find(pins)?;
    if other_builds.is_empty() {
        return Ok(false);
    }
    info!("upgrading from another build");
    pins.begin_change()?;
    let mut upgrade = Upgrade {
        pins,
        shared: SharedState::prepare(pins)?,
    };
    upgrade.run(&other_builds).context(
        "cannot upgrade from another build: its programs stay attached, some may already be \
         replaced",
    )?;
    Ok(true)
}

/// This build's side.
struct Upgrade<'a> {
    pins: &'a Pins,
    shared: SharedState,
}

impl Upgrade<'_> {
    fn run(&mut self, other_builds: &OtherBuilds) -> Result<()> {
        for (cookie, policy) in other_builds.attached(self.pins)? {
            self.migrate_pod(cookie, policy)?;
        }
        let pods = attached(&self.shared.maps)?;
        self.shared.maps.divide_among(pods.len())?;
        for (cookie, _) in pods {
            self.shared.maps.init_stand_in_counter(cookie)?;
        }
        self.shared.programs.replace_listener_programs(self.pins)?;
        if other_builds.has_own(layout::LISTENER_PORTS) {
            self.register_listeners()?;
        }
        let SharedState {
            object,
            maps,
            programs,
            ..
        } = &mut self.shared;
        programs.replace_others(object, maps, self.pins)?;
        self.replace_filters()?;
        other_builds.remove(self.pins)
    }

    /// Replaces filters by this build's programs, which is possible only inside of the network
    /// namespace.
    fn replace_filters(&mut self) -> Result<()> {
        for (cookie, policy) in attached(&self.shared.maps)? {
            let dir = self.pins.netns(cookie);
            for hooks in with_filters(Side::Node, &dir)? {
                let object = &mut self.shared.object;
                node_netns()?.run(|| hooks.replace_filters(object))?;
            }
            for hooks in with_filters(Side::Pod, &dir)? {
                if let Some(netns) = self.open(cookie, policy)? {
                    let object = &mut self.shared.object;
                    netns.run(|| hooks.replace_filters(object))?;
                }
            }
        }
        Ok(())
    }

    /// Creates a pod's policy in this build's maps, unless a killed upgrade has created it.
    fn migrate_pod(&mut self, cookie: NetnsCookie, policy: PolicyId) -> Result<()> {
        if policy_of(&self.shared.maps, cookie)?.is_some() {
            return Ok(());
        }
        let Some(netns) = self.open(cookie, policy)? else {
            return Ok(());
        };
        let record = Record::load(&self.shared.maps, policy)?;
        attach::migrate_pod(&netns, &record, self.pins, &mut self.shared)
            .with_context(|| format!("{}", netns.path().display()))
    }

    /// Opens an attached network namespace; `None` if it is deleted. Waits for one that has no path
    /// and no process, because the kernel is probably deleting it.
    fn open(&self, cookie: NetnsCookie, policy: PolicyId) -> Result<Option<Netns>> {
        let pin = self.pins.netns(cookie).join(hooks::LOOKUP.program);
        let maps = &self.shared.maps;
        for _ in 0..MAX_OPEN_ATTEMPTS {
            if !link::is_alive(hooks::LOOKUP, &pin)? {
                return Ok(None);
            }
            if let Some(netns) = open_attached(self.pins, maps, cookie, policy) {
                return Ok(Some(netns));
            }
            thread::sleep(OPEN_RETRY_INTERVAL);
        }
        let record = Record::load(maps, policy)?;
        bail!(
            "the network namespace with the cookie {cookie}, attached as {}, has no path and no \
             process any more: wait until the kernel has deleted it, or detach all pods with \
             `interceptor detach --all`",
            record.netns.display()
        )
    }

    /// Registers the listeners of all pods in this build's maps. Those that a killed upgrade has
    /// registered get a second slot, which does no harm.
    fn register_listeners(&mut self) -> Result<()> {
        for (cookie, policy) in attached(&self.shared.maps)? {
            let Some(netns) = self.open(cookie, policy)? else {
                continue;
            };
            let record = Record::load(&self.shared.maps, policy)?;
            listeners::register_all(&netns, &record.settings, &mut self.shared)?;
        }
        Ok(())
    }
}

/// The programs on one side of a pod's interfaces that are filters.
fn with_filters(side: Side, dir: &Path) -> Result<Vec<InterfaceHooks>> {
    let found = InterfaceHooks::on(side, dir).into_iter();
    let has_filters = found.map(|hooks| Ok(hooks.has_filters()?.then_some(hooks)));
    has_filters.filter_map(Result::transpose).collect()
}
