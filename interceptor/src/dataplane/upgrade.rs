//! Taking over what another build has pinned: a newer one, an older one, or one that was killed while
//! it took over from this.
//!
//! What both lay out alike they share ([`crate::bpf::layout`]): stand-ins, listeners, the state of
//! every connection. Policies that are laid out in another way are compiled anew, from their records,
//! beside those in force. Then the programs change places, each by one update of a link, in an order
//! in which every connection meets one that knows it. Only then goes what nothing uses any more.
//!
//! ```text
//!  1  maps that are missing            nobody looks at them yet
//!  2  programs, loaded and pinned      in force nowhere
//!  3  policies, pod by pod             the other build's are still what counts
//!  4  sockops                          listeners are noted in this build's maps for the ports there
//!  5  ports and open listeners         where needed: from here on these maps know all of them
//!  6  names, answers, sk_lookup, interfaces
//!  7  connect, sendmsg                 from here on, this build's policies are what counts
//!     interfaces, where the programs there are filters (before Linux 6.6)
//!  8  the other build's programs and maps are removed, its policies first of those
//! ```
//!
//! Killed after any step, the next command of either build does the same: it completes this, or goes
//! back. Until step 7 all of the other build's policies are there, after it all of this one's.
//!
//! A pod whose network namespace cannot be entered, by its path or by a process in it, stops all of
//! it before step 4: its traffic, and that of all others, stays with the other build's programs.

use std::{thread, time::Duration};

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
    bpf::{hooks, interface_hooks, layout, link, other_builds::OtherBuilds, pins::Pins},
    netns::Netns,
};

/// How long a network namespace that is going is waited for.
const MAX_OPEN_ATTEMPTS: u32 = 40;
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Takes over from other builds, if there is anything of theirs. Answers whether there was. Called
/// under the lock, and followed by what ends every change.
pub(crate) fn take_over(pins: &Pins) -> Result<bool> {
    let other_builds = OtherBuilds::find(pins)?;
    if other_builds.is_empty() {
        return Ok(false);
    }
    info!("taking over from another build");
    pins.begin_change()?;
    let mut upgrade = Upgrade {
        pins,
        shared: SharedState::prepare(pins)?,
    };
    upgrade.run(&other_builds).context(
        "cannot take over from another build, whose programs stay in force, or are partly \
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
            self.note_listeners()?;
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

    /// Puts this build's programs in the place of filters, which only who is in the network namespace
    /// can.
    fn replace_filters(&mut self) -> Result<()> {
        for (cookie, policy) in attached(&self.shared.maps)? {
            let dir = self.pins.netns(cookie);
            if !interface_hooks::has_filters(&dir)? {
                continue;
            }
            if let Some(netns) = self.open(cookie, policy)? {
                let object = &mut self.shared.object;
                netns.run(|| interface_hooks::replace_filters(object, &dir))?;
            }
        }
        Ok(())
    }

    /// Makes a pod's policy in this build's maps, unless one that was killed has made it.
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

    /// Opens an attached network namespace; `None` if it is gone. One that is going, which nothing
    /// leads to any more, is waited for.
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
            "the network namespace with the cookie {cookie}, attached as {}, is not there any more, \
             and no process is in it: wait until the kernel has let go of it, or detach everything \
             with `interceptor detach --all`",
            record.netns.display()
        )
    }

    /// Notes the listeners of all pods in this build's maps. If a killed upgrade has noted them
    /// already, they take another slot: one more is known, and none less.
    fn note_listeners(&mut self) -> Result<()> {
        for (cookie, policy) in attached(&self.shared.maps)? {
            let Some(netns) = self.open(cookie, policy)? else {
                continue;
            };
            let record = Record::load(&self.shared.maps, policy)?;
            listeners::note_all(&netns, &record.settings, &mut self.shared)?;
        }
        Ok(())
    }
}
