//! Attaching a network namespace, and replacing what it is attached with.
//!
//! Everything is put in place before the policy, and the policy comes into force by one update of
//! one map: a connection is either before it or after it. Every step may be repeated, so that an
//! attach that was killed is completed by the next.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{ListenerPortKey, NetnsCookie, Policy, PolicyFlags, PolicyId};

use super::{
    attach_points::AttachPoints, listeners, policy_entries, record::Record, registry::Existing,
    shared::SharedState,
};
use crate::{
    bpf::{
        dispatcher, grace, hooks, interface_hooks, link,
        pins::{self, Pins},
    },
    netns::{
        Netns, NetnsId, NetnsSpec,
        addresses::{self, add_passthrough_v6},
        interfaces::{self, PodInterface},
        localhost_routes,
        netlink::Session,
        network::{self, PodNetwork, Unread},
        stand_in_routes::{self, Sources},
        stand_in_rule,
        tproxy::{self, Delivery, Retired},
    },
    policy::CompiledPolicy,
    settings::Settings,
};

/// How often the routes are asked for again because they changed meanwhile, as they do for a moment
/// after an address was added: the kernel adds an IPv6 address's routes later, by itself.
const MAX_UNSTABLE_READS: u32 = 5;

/// What became of an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The network namespace was not attached before.
    New,
    /// Its settings or its cgroup were others before.
    Replaced,
    /// It was attached alike; the pod's addresses or routes have changed since.
    Refreshed,
    /// It was attached with the same settings.
    Unchanged,
}

/// What comes of a step of an attach, for which the machine-wide lock is held.
pub(crate) enum Progress<T = Attached> {
    /// It is over.
    Done(T),
    /// Nothing is in force yet: the pod's network is to be read first, which takes longer than other
    /// commands should wait.
    Unread(Unread),
}

impl<T> Progress<T> {
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Self::Done(done) => Progress::Done(make(done)),
            Self::Unread(unread) => Progress::Unread(unread),
        }
    }
}

/// Where an attach has the pod's network from.
pub(crate) enum NetworkSource {
    /// It reads it itself, if it is small.
    Small,
    /// It reads it itself.
    Whole,
    /// It was read. What has changed since makes it stale, which is in order the last time only.
    Done {
        /// As it was.
        network: PodNetwork,
        /// Whether it is not read again.
        is_last: bool,
    },
}

/// What to attach, where, and how.
#[derive(Debug)]
pub struct AttachSpec<'a> {
    /// The pod.
    pub netns: &'a Netns,
    /// Where its sockets are seen.
    pub places: &'a AttachPoints,
    /// What is captured.
    pub settings: &'a Settings,
    /// Whether every verdict is told to [`crate::bpf::log`].
    pub log: bool,
    /// Whether to look for listeners that opened while no hook saw them, although others are known.
    /// That walks every TCP socket of the machine.
    pub scan_listeners: bool,
}

impl AttachSpec<'_> {
    /// Attaches the pod, whose network namespace the calling thread is in.
    pub(crate) fn apply(
        &self,
        pins: &Pins,
        shared: &mut SharedState,
        source: NetworkSource,
    ) -> Result<Progress> {
        // First of all: what has no name there is refused before anything is changed.
        let in_kernel = settings_in_kernel(self.netns, self.settings)?;
        let netlink = Session::open()?;
        let existing = Existing::read(&shared.maps, self.netns.cookie())?;
        let mut txn = AttachTxn {
            netns: self.netns,
            settings: self.settings,
            in_kernel: &in_kernel,
            log: self.log,
            scan_listeners: self.scan_listeners,
            ipv6: existing
                .as_ref()
                .and_then(|existing| existing.captured_ipv6(self.settings)),
            pins,
            shared,
            netlink: &netlink,
            existing,
        };
        let Some((attached, ipv6)) = txn.run(self, source)? else {
            return txn.unread().map(Progress::Unread);
        };
        if txn.remove_unused_tproxy(ipv6)? {
            // The policy is to know the state of the routing tables. (That of a large network does
            // with the next refresh.)
            txn.existing = Existing::read(&txn.shared.maps, self.netns.cookie())?;
            txn.run(self, NetworkSource::Small)?;
        }
        Ok(Progress::Done(attached))
    }

    fn record(&self, network: &PodNetwork) -> Record {
        let AttachPoints {
            root,
            kubepods,
            pod,
        } = self.places.names();
        Record {
            settings: self.settings.clone(),
            netns: self.netns.path().to_owned(),
            cgroup: root.path,
            cgroup_id: root.id,
            kubepods_cgroup: kubepods,
            pod_cgroup: pod,
            ipv6: network.ipv6,
            log: self.log,
            network: network.digest(),
            limits: network.limits.clone(),
        }
    }
}

/// The settings, with users and groups as the kernel knows them: those of a pod with a user
/// namespace of its own have other numbers there.
fn settings_in_kernel<'a>(netns: &Netns, settings: &'a Settings) -> Result<Cow<'a, Settings>> {
    match netns.ids()? {
        Some(ids) => ids.translate(settings).map(Cow::Owned),
        None => Ok(Cow::Borrowed(settings)),
    }
}

/// Going from what was before to what is to be.
struct AttachTxn<'a> {
    netns: &'a Netns,
    settings: &'a Settings,
    /// The settings, with users and groups as the kernel knows them.
    in_kernel: &'a Settings,
    log: bool,
    scan_listeners: bool,
    /// Whether IPv6 is captured, if that is settled.
    ipv6: Option<bool>,
    pins: &'a Pins,
    shared: &'a mut SharedState,
    netlink: &'a Session,
    existing: Option<Existing>,
}

impl AttachTxn<'_> {
    /// Answers whether IPv6 is captured, too. Nothing if the network is to be read first.
    fn run(
        &mut self,
        wanted: &AttachSpec<'_>,
        source: NetworkSource,
    ) -> Result<Option<(Attached, bool)>> {
        let prepared = self.prepare_network(source).with_context(|| {
            let netns = self.netns.path().display();
            format!("in the network namespace {netns}")
        })?;
        let Some(PreparedNetwork { network, sources }) = prepared else {
            return Ok(None);
        };
        self.note_listeners()?;
        let hook_was_missing = self.link(wanted.places)?;
        let looks_again = hook_was_missing || self.scan_listeners;
        listeners::note_open(self.cookie(), self.settings, self.shared, looks_again)?;
        let watched = self.hook_interfaces(&network)?;
        let record = Record {
            netns: self.path(),
            ..wanted.record(&network)
        };
        let compiled = self.compile(&network, &sources, wanted.places.kubepods.is_some())?;
        let attached = if self.refresh_in_place(&record, &compiled.policy)? {
            Attached::Unchanged
        } else {
            let record = self.commit(compiled, record)?;
            self.outcome(&record)
        };
        self.unhook_interfaces(&network, &watched)?;
        if attached != Attached::Unchanged {
            self.drop_previous()?;
        }
        Ok(Some((attached, network.ipv6)))
    }

    /// The network, to be read while other commands are at work.
    fn unread(&self) -> Result<Unread> {
        Ok(Unread {
            ipv6: self.ipv6,
            dual_stack: self.settings.dual_stack,
            state: self.shared.fib.state()?,
        })
    }

    /// The path that it is known by: the first, as long as that leads there, unless that is by a
    /// process, which may end, and the one that it is named by now is not.
    fn path(&self) -> PathBuf {
        let now = self.netns.path();
        let by_process = |path: &Path| NetnsSpec::File(path.to_owned()).process().is_some();
        let is_as_good = |first: &&PathBuf| by_process(now) || !by_process(first);
        let leads_here = |first: &&PathBuf| {
            NetnsId::of(first)
                .ok()
                .is_some_and(|id| self.netns.id().ok() == Some(id))
        };
        let first = self
            .existing
            .as_ref()
            .map(|existing| &existing.record.netns);
        let kept = first.filter(is_as_good).filter(leads_here);
        kept.map_or_else(|| now.to_owned(), Clone::clone)
    }

    const fn cookie(&self) -> NetnsCookie {
        self.netns.cookie()
    }

    /// From now on, who listens on the proxy's ports is noted.
    fn note_listeners(&mut self) -> Result<()> {
        let (netns, is_new) = (self.cookie(), self.existing.is_none());
        // First of all: by its folder the namespace is known to whoever finds this unfinished.
        pins::create_dir(&self.pins.netns(netns))?;
        let maps = &mut self.shared.maps;
        if is_new {
            maps.divide_among(self.pins.netns_cookies()?.len())?;
            maps.init_stand_in_counter(netns)?;
        }
        listeners::note_ports(netns, self.settings, maps)
    }

    /// Attaches the programs at the cgroups and at the network namespace. Returns whether one was
    /// missing at a cgroup.
    fn link(&mut self, places: &AttachPoints) -> Result<bool> {
        let mut is_new = false;
        for (cgroup, hooks) in places.with_hooks() {
            is_new |= self.shared.link(self.pins, cgroup, &hooks)?;
        }
        self.link_lookup()?;
        Ok(is_new)
    }

    fn link_lookup(&self) -> Result<()> {
        let dir = self.pins.netns(self.cookie());
        if link::is_alive(hooks::LOOKUP, &dir.join(hooks::LOOKUP.program))? {
            return Ok(());
        }
        let dispatcher = dispatcher::load(&self.shared.maps, self.cookie())?;
        link::ensure(hooks::LOOKUP, &dispatcher, self.netns, &dir).map(drop)
    }

    /// Asks for the pod's network, unless that is done, and puts into it what capturing takes. Nothing
    /// if it is to be read first, or again.
    fn prepare_network(&mut self, source: NetworkSource) -> Result<Option<PreparedNetwork>> {
        let (mut read, is_last) = match source {
            NetworkSource::Small if !network::is_small()? => return Ok(None),
            NetworkSource::Small | NetworkSource::Whole => (None, false),
            NetworkSource::Done { network, is_last } => (Some(network), is_last),
        };
        let settings = self.settings;
        let settled = self.ipv6.or_else(|| read.as_ref().map(|read| read.ipv6));
        let (ipv6, mut sources) = self.netlink.run(async |handle| {
            let ipv6 = if let Some(settled) = settled {
                settled
            } else {
                let addresses = addresses::list(&handle).await?;
                addresses::captures_ipv6(&addresses, settings.dual_stack)?
            };
            if ipv6 {
                add_passthrough_v6(&handle).await?;
                stand_in_rule::install(&handle).await?;
            }
            if let Some(delivery) = Delivery::of(settings, ipv6) {
                tproxy::install(&handle, delivery).await?;
            }
            let localhosts = localhost_routes::needed(settings, ipv6);
            if !localhosts.is_empty() {
                let interfaces = interfaces::list(&handle).await?;
                localhost_routes::install(&handle, &interfaces, localhosts).await?;
            }
            Ok((ipv6, stand_in_routes::read()?))
        })?;
        let mut tries = 0..MAX_UNSTABLE_READS;
        loop {
            // Before the routes are asked: what changes meanwhile makes the copy stale, not wrong.
            let state = self.shared.fib.state()?;
            let was_read = read.is_some();
            let network = match read.take() {
                Some(network) => network,
                None => self
                    .netlink
                    .run(async |handle| PodNetwork::read(&handle, ipv6, state).await)?,
            };
            let watches = !interfaces::watched(&network.interfaces, settings).is_empty();
            let answers = network.routes.iter();
            let new_source = sources.add_all(answers.filter_map(|answer| answer.way.source()));
            if (watches && sources.add_forwarded()) || new_source {
                // Which changes the tables: ask once more.
                let install = async |handle| stand_in_routes::install(&handle, &sources).await;
                self.netlink.run(install)?;
            } else if tries.next().is_none() || self.shared.fib.state()? == network.state {
                return Ok(Some(PreparedNetwork { network, sources }));
            }
            if was_read {
                return Ok(is_last.then_some(PreparedNetwork { network, sources }));
            }
        }
    }

    /// Has our programs see what would be forwarded through the pod.
    fn hook_interfaces(&mut self, network: &PodNetwork) -> Result<Vec<PodInterface>> {
        let watched = interfaces::watched(&network.interfaces, self.settings);
        let dir = self.pins.netns(self.cookie());
        for interface in &watched {
            interface_hooks::ensure(&mut self.shared.object, interface, &dir)?;
        }
        Ok(watched)
    }

    /// Takes the programs away from where the policy in force does not need them.
    fn unhook_interfaces(&self, network: &PodNetwork, watched: &[PodInterface]) -> Result<()> {
        let dir = self.pins.netns(self.cookie());
        interface_hooks::retain(&network.interfaces, watched, &dir)
    }

    fn compile(
        &self,
        network: &PodNetwork,
        sources: &Sources,
        is_seen_twice: bool,
    ) -> Result<CompiledPolicy> {
        let mut compiled = CompiledPolicy::new(random_id()?, self.in_kernel, network, sources);
        let flags = compiled.policy.flags;
        compiled.policy.flags = flags
            .with(PolicyFlags::LOG, self.log)
            .with(PolicyFlags::SEEN_TWICE, is_seen_twice);
        Ok(compiled)
    }

    /// Renews the policy in force, if it says the same. Answers whether it does.
    fn refresh_in_place(&mut self, record: &Record, policy: &Policy) -> Result<bool> {
        let existing = self.existing.as_ref();
        let alike = existing.filter(|existing| existing.record == *record);
        let Some(refreshed) = alike.and_then(|existing| existing.refreshed(policy)) else {
            return Ok(false);
        };
        if alike.is_some_and(|existing| existing.policy == refreshed) {
            return Ok(true);
        }
        let netns = self.cookie();
        let policies = &mut self.shared.maps.policies;
        policies
            .insert(netns, refreshed, 0)
            .context("cannot renew the policy")?;
        // The one before may be a new element's memory at once.
        grace::wait_for_running_programs();
        Ok(true)
    }

    /// The last step is the one that counts.
    fn commit(&mut self, mut compiled: CompiledPolicy, mut record: Record) -> Result<Record> {
        let netns = self.cookie();
        let maps = &mut self.shared.maps;
        policy_entries::insert(maps, &compiled)?;
        let limits = policy_entries::insert_routes(maps, &compiled)?;
        if !limits.is_empty() {
            compiled.disable_routes();
            record.limits = limits;
        }
        record.store(maps, compiled.policy.id)?;
        maps.policies
            .insert(netns, compiled.policy, 0)
            .context("the policy does not fit into the maps")?;
        Ok(record)
    }

    fn outcome(&self, record: &Record) -> Attached {
        let Some(existing) = &self.existing else {
            return Attached::New;
        };
        let alike = Record {
            log: existing.record.log,
            network: existing.record.network,
            limits: existing.record.limits.clone(),
            ..record.clone()
        };
        if existing.record == alike {
            Attached::Refreshed
        } else {
            Attached::Replaced
        }
    }

    /// Takes away what only the policy before needed.
    fn drop_previous(&mut self) -> Result<()> {
        let netns = self.cookie();
        let Some(existing) = &self.existing else {
            return Ok(());
        };
        grace::wait_for_running_programs();
        let maps = &mut self.shared.maps;
        policy_entries::remove(maps, existing.policy.id)?;
        let ports = listeners::proxy_ports(self.settings);
        for port in listeners::proxy_ports(&existing.record.settings) {
            if !ports.contains(&port) {
                let old = ListenerPortKey::new(netns, port);
                maps.remove_listeners(|key| *key == old)?;
            }
        }
        Ok(())
    }

    /// Removes what only other TPROXY or DNS settings needed. Returns whether there was any.
    fn remove_unused_tproxy(&self, ipv6: bool) -> Result<bool> {
        let needed = Delivery::of(self.settings, ipv6);
        let localhosts = localhost_routes::needed(self.settings, ipv6);
        self.netlink.run(async |handle| {
            let retired = tproxy::retire(&handle, needed).await?;
            let is_any = localhost_routes::retire(&handle, localhosts).await?;
            Ok(is_any || retired == Retired::Removed)
        })
    }
}

/// Puts into force in this build's maps what a pod is attached with in another's. Changes nothing
/// else but the pod's routes, as a refresh does.
pub(crate) fn migrate_pod(
    netns: &Netns,
    record: &Record,
    pins: &Pins,
    shared: &mut SharedState,
) -> Result<()> {
    netns.enter(|| {
        let settings = &record.settings;
        let in_kernel = settings_in_kernel(netns, settings)?;
        let mut txn = AttachTxn {
            netns,
            settings,
            in_kernel: &in_kernel,
            log: record.log,
            scan_listeners: false,
            ipv6: Some(record.ipv6),
            pins,
            shared,
            netlink: &Session::open()?,
            existing: None,
        };
        let prepared = txn.prepare_network(NetworkSource::Whole)?;
        let PreparedNetwork { network, sources } = prepared.context("the network is not read")?;
        let compiled = txn.compile(&network, &sources, record.kubepods_cgroup.is_some())?;
        let adopted = Record {
            network: network.digest(),
            limits: network.limits.clone(),
            ..record.clone()
        };
        txn.commit(compiled, adopted).map(drop)
    })
}

fn random_id() -> Result<PolicyId> {
    getrandom::u32().context("getrandom failed")
}

/// A pod's network, with `::6` added and the stand-in routes read.
struct PreparedNetwork {
    network: PodNetwork,
    sources: Sources,
}
