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

use super::{attach_points::Places, listeners, record::Record, registry::Existing, shared::Loaded};
use crate::{
    bpf::{
        dispatcher, grace, hooks, interface_hooks, link,
        pins::{self, Pins},
    },
    lists,
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
const TRIES_FOR_A_STILL_NETWORK: u32 = 5;

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
pub(crate) enum Established<T = Attached> {
    /// It is over.
    Done(T),
    /// Nothing is in force yet: the pod's network is to be read first, which takes longer than other
    /// commands should wait.
    Unread(Unread),
}

impl<T> Established<T> {
    pub(crate) fn map<U>(self, make: impl FnOnce(T) -> U) -> Established<U> {
        match self {
            Self::Done(done) => Established::Done(make(done)),
            Self::Unread(unread) => Established::Unread(unread),
        }
    }
}

/// Where an attach has the pod's network from.
pub(crate) enum Reading {
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
pub struct Attachment<'a> {
    /// The pod.
    pub netns: &'a Netns,
    /// Where its sockets are seen.
    pub places: &'a Places,
    /// What is captured.
    pub settings: &'a Settings,
    /// Whether every verdict is told to [`crate::bpf::log`].
    pub log: bool,
    /// Whether to look for listeners that opened while no hook saw them, although others are known.
    /// That walks every TCP socket of the machine.
    pub looks_for_listeners: bool,
}

impl Attachment<'_> {
    /// Attaches the pod, whose network namespace the calling thread is in.
    pub(crate) fn establish(
        &self,
        pins: &Pins,
        loaded: &mut Loaded,
        reading: Reading,
    ) -> Result<Established> {
        // First of all: what has no name there is refused before anything is changed.
        let in_kernel = settings_in_kernel(self.netns, self.settings)?;
        let netlink = Session::open()?;
        let before = Existing::read(&loaded.maps, self.netns.cookie())?;
        let mut step = Step {
            netns: self.netns,
            settings: self.settings,
            in_kernel: &in_kernel,
            log: self.log,
            looks_for_listeners: self.looks_for_listeners,
            ipv6: before
                .as_ref()
                .and_then(|before| before.kept_ipv6(self.settings)),
            pins,
            loaded,
            netlink: &netlink,
            before,
        };
        let Some((attached, ipv6)) = step.establish(self, reading)? else {
            return step.unread().map(Established::Unread);
        };
        if step.retire(ipv6)? {
            // The policy is to know the state of the routing tables. (That of a large network does
            // with the next refresh.)
            step.before = Existing::read(&step.loaded.maps, self.netns.cookie())?;
            step.establish(self, Reading::Small)?;
        }
        Ok(Established::Done(attached))
    }

    fn record(&self, network: &PodNetwork) -> Record {
        let Places { root, first, pod } = self.places.names();
        Record {
            settings: self.settings.clone(),
            netns: self.netns.path().to_owned(),
            cgroup: root.path,
            cgroup_id: root.id,
            first_cgroup: first,
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
struct Step<'a> {
    netns: &'a Netns,
    settings: &'a Settings,
    /// The settings, with users and groups as the kernel knows them.
    in_kernel: &'a Settings,
    log: bool,
    looks_for_listeners: bool,
    /// Whether IPv6 is captured, if that is settled.
    ipv6: Option<bool>,
    pins: &'a Pins,
    loaded: &'a mut Loaded,
    netlink: &'a Session,
    before: Option<Existing>,
}

impl Step<'_> {
    /// Answers whether IPv6 is captured, too. Nothing if the network is to be read first.
    fn establish(
        &mut self,
        wanted: &Attachment<'_>,
        reading: Reading,
    ) -> Result<Option<(Attached, bool)>> {
        let prepared = self.prepare_network(reading).with_context(|| {
            let netns = self.netns.path().display();
            format!("in the network namespace {netns}")
        })?;
        let Some(Prepared { network, sources }) = prepared else {
            return Ok(None);
        };
        self.note_listeners()?;
        let hook_was_missing = self.link(wanted.places)?;
        let looks_again = hook_was_missing || self.looks_for_listeners;
        listeners::note_open(self.cookie(), self.settings, self.loaded, looks_again)?;
        let watched = self.watch(&network)?;
        let record = Record {
            netns: self.path(),
            ..wanted.record(&network)
        };
        let compiled = self.compile(&network, &sources, wanted.places.first.is_some())?;
        let attached = if self.renew(&record, &compiled.policy)? {
            Attached::Unchanged
        } else {
            let record = self.put_in_force(compiled, record)?;
            self.outcome(&record)
        };
        self.unwatch(&network, &watched)?;
        if attached != Attached::Unchanged {
            self.forget()?;
        }
        Ok(Some((attached, network.ipv6)))
    }

    /// The network, to be read while other commands are at work.
    fn unread(&self) -> Result<Unread> {
        Ok(Unread {
            ipv6: self.ipv6,
            dual_stack: self.settings.dual_stack,
            state: self.loaded.fib.state()?,
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
        let first = self.before.as_ref().map(|before| &before.record.netns);
        let kept = first.filter(is_as_good).filter(leads_here);
        kept.map_or_else(|| now.to_owned(), Clone::clone)
    }

    const fn cookie(&self) -> NetnsCookie {
        self.netns.cookie()
    }

    /// From now on, who listens on the proxy's ports is noted.
    fn note_listeners(&mut self) -> Result<()> {
        let (netns, is_new) = (self.cookie(), self.before.is_none());
        // First of all: by its folder the namespace is known to whoever finds this unfinished.
        pins::create_folder(&self.pins.netns(netns))?;
        let maps = &mut self.loaded.maps;
        if is_new {
            maps.divide_among(self.pins.netns_cookies()?.len())?;
            maps.init_stand_in_counter(netns)?;
        }
        listeners::note_ports(netns, self.settings, maps)
    }

    /// Attaches the programs at the cgroups and at the network namespace. Returns whether one was
    /// missing at a cgroup.
    fn link(&mut self, places: &Places) -> Result<bool> {
        let mut is_new = false;
        for (cgroup, hooks) in places.each() {
            is_new |= self.loaded.link(self.pins, cgroup, &hooks)?;
        }
        self.link_lookup()?;
        Ok(is_new)
    }

    fn link_lookup(&self) -> Result<()> {
        let folder = self.pins.netns(self.cookie());
        if link::is_alive(hooks::LOOKUP, &folder.join(hooks::LOOKUP.program))? {
            return Ok(());
        }
        let dispatcher = dispatcher::load(&self.loaded.maps, self.cookie())?;
        link::ensure(hooks::LOOKUP, &dispatcher, self.netns, &folder).map(drop)
    }

    /// Asks for the pod's network, unless that is done, and puts into it what capturing takes. Nothing
    /// if it is to be read first, or again.
    fn prepare_network(&mut self, reading: Reading) -> Result<Option<Prepared>> {
        let (mut read, is_last) = match reading {
            Reading::Small if !network::is_small()? => return Ok(None),
            Reading::Small | Reading::Whole => (None, false),
            Reading::Done { network, is_last } => (Some(network), is_last),
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
        let mut tries = 0..TRIES_FOR_A_STILL_NETWORK;
        loop {
            // Before the routes are asked: what changes meanwhile makes the copy stale, not wrong.
            let state = self.loaded.fib.state()?;
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
            if (watches && sources.add_beyond()) || new_source {
                // Which changes the tables: ask once more.
                let install = async |handle| stand_in_routes::install(&handle, &sources).await;
                self.netlink.run(install)?;
            } else if tries.next().is_none() || self.loaded.fib.state()? == network.state {
                return Ok(Some(Prepared { network, sources }));
            }
            if was_read {
                return Ok(is_last.then_some(Prepared { network, sources }));
            }
        }
    }

    /// Has our programs see what would be forwarded through the pod.
    fn watch(&mut self, network: &PodNetwork) -> Result<Vec<PodInterface>> {
        let watched = interfaces::watched(&network.interfaces, self.settings);
        let folder = self.pins.netns(self.cookie());
        for interface in &watched {
            interface_hooks::ensure(&mut self.loaded.object, interface, &folder)?;
        }
        Ok(watched)
    }

    /// Takes the programs away from where the policy in force does not need them.
    fn unwatch(&self, network: &PodNetwork, watched: &[PodInterface]) -> Result<()> {
        let folder = self.pins.netns(self.cookie());
        interface_hooks::retain(&network.interfaces, watched, &folder)
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
    fn renew(&mut self, record: &Record, policy: &Policy) -> Result<bool> {
        let before = self.before.as_ref();
        let alike = before.filter(|before| before.record == *record);
        let Some(renewed) = alike.and_then(|before| before.renewed(policy)) else {
            return Ok(false);
        };
        if alike.is_some_and(|before| before.policy == renewed) {
            return Ok(true);
        }
        let netns = self.cookie();
        let policies = &mut self.loaded.maps.policies;
        policies
            .insert(netns, renewed, 0)
            .context("cannot renew the policy")?;
        // The one before may be a new element's memory at once.
        grace::wait_for_running_programs();
        Ok(true)
    }

    /// The last step is the one that counts.
    fn put_in_force(&mut self, mut compiled: CompiledPolicy, mut record: Record) -> Result<Record> {
        let netns = self.cookie();
        let maps = &mut self.loaded.maps;
        lists::insert(maps, &compiled)?;
        let limits = lists::insert_routes(maps, &compiled)?;
        if !limits.is_empty() {
            compiled.forget_routing();
            record.limits = limits;
        }
        record.store(maps, compiled.policy.id)?;
        maps.policies
            .insert(netns, compiled.policy, 0)
            .context("the policy does not fit into the maps")?;
        Ok(record)
    }

    fn outcome(&self, record: &Record) -> Attached {
        let Some(before) = &self.before else {
            return Attached::New;
        };
        let alike = Record {
            log: before.record.log,
            network: before.record.network,
            limits: before.record.limits.clone(),
            ..record.clone()
        };
        if before.record == alike {
            Attached::Refreshed
        } else {
            Attached::Replaced
        }
    }

    /// Takes away what only the policy before needed.
    fn forget(&mut self) -> Result<()> {
        let netns = self.cookie();
        let Some(before) = &self.before else {
            return Ok(());
        };
        grace::wait_for_running_programs();
        let maps = &mut self.loaded.maps;
        lists::remove(maps, before.policy.id)?;
        let ports = listeners::proxy_ports(self.settings);
        for port in listeners::proxy_ports(&before.record.settings) {
            if !ports.contains(&port) {
                let old = ListenerPortKey::new(netns, port);
                maps.remove_listeners(|key| *key == old)?;
            }
        }
        Ok(())
    }

    /// Removes what only other TPROXY or DNS settings needed. Returns whether there was any.
    fn retire(&self, ipv6: bool) -> Result<bool> {
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
pub(crate) fn adopt(
    netns: &Netns,
    record: &Record,
    pins: &Pins,
    loaded: &mut Loaded,
) -> Result<()> {
    netns.enter(|| {
        let settings = &record.settings;
        let in_kernel = settings_in_kernel(netns, settings)?;
        let mut step = Step {
            netns,
            settings,
            in_kernel: &in_kernel,
            log: record.log,
            looks_for_listeners: false,
            ipv6: Some(record.ipv6),
            pins,
            loaded,
            netlink: &Session::open()?,
            before: None,
        };
        let prepared = step.prepare_network(Reading::Whole)?;
        let Prepared { network, sources } = prepared.context("the network is not read")?;
        let compiled = step.compile(&network, &sources, record.first_cgroup.is_some())?;
        let adopted = Record {
            network: network.digest(),
            limits: network.limits.clone(),
            ..record.clone()
        };
        step.put_in_force(compiled, adopted).map(drop)
    })
}

fn random_id() -> Result<PolicyId> {
    getrandom::u32().context("getrandom failed")
}

/// A pod's network, with `::6` added and the stand-in routes read.
struct Prepared {
    network: PodNetwork,
    sources: Sources,
}
