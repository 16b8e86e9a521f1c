//! Attaches a network namespace, or replaces its policy.
//!
//! Everything else is prepared before the policy, and one update of one map makes the policy
//! effective: each connection meets either the old or the new one. Every step may be repeated, so the
//! next attach completes one that was killed.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use interceptor_ebpf::{ListenerPortKey, NetnsCookie, Policy, PolicyFlags, PolicyId};
use jiff::Timestamp;

use super::{
    attach_points::AttachPoints,
    listeners, policy_entries,
    record::Record,
    registry::Existing,
    shared::SharedState,
    uplinks::{self, Uplinks},
};
use crate::{
    bpf::{
        dispatcher, grace, hooks,
        interface_hooks::InterfaceHooks,
        link,
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
    pod_name::PodName,
    policy::CompiledPolicy,
    settings::Settings,
};

/// How often the routes are read again because they have changed during the read, as they do for a
/// moment after an address was added: the kernel adds an IPv6 address's routes later, by itself.
const MAX_UNSTABLE_READS: u32 = 5;

/// The result of an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The network namespace was not attached before.
    New,
    /// It was attached with other settings or at another cgroup.
    Replaced,
    /// It was attached with the same settings; the pod's addresses or routes have changed since.
    Refreshed,
    /// It was attached with the same settings, and nothing has changed.
    Unchanged,
}

/// The result of one step of an attach, which holds the machine-wide lock.
pub(super) enum Progress<T = Attached> {
    /// The attach is complete.
    Done(T),
    /// Nothing is effective yet: the pod's network must be read first, without the lock, because that
    /// takes longer than other commands should wait.
    Unread(Unread),
}

impl<T> Progress<T> {
    pub(super) fn map<U>(self, make: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Self::Done(done) => Progress::Done(make(done)),
            Self::Unread(unread) => Progress::Unread(unread),
        }
    }
}

/// Where a step gets the pod's network from.
pub(super) enum NetworkSource {
    /// It reads a small network itself, and returns [`Progress::Unread`] for a large one.
    ReadIfSmall,
    /// It reads the network itself.
    Read,
    /// It was read before. If it has changed since, it is read again, except after the last attempt.
    AlreadyRead { network: PodNetwork, is_last: bool },
}

/// What to attach, where, and how.
#[derive(Debug)]
pub struct AttachSpec<'a> {
    /// The pod's network namespace.
    pub netns: &'a Netns,
    /// The pod's name, if known. Without one, a pod that is attached keeps its name.
    pub pod: Option<&'a PodName>,
    /// The cgroups to attach to.
    pub attach_points: &'a AttachPoints,
    /// What is captured.
    pub settings: &'a Settings,
    /// Whether to search for listeners that opened while no hook was attached, even if others are
    /// registered. This iterates over every TCP socket of the machine.
    pub scan_listeners: bool,
}

impl AttachSpec<'_> {
    /// Attaches the pod. The calling thread is in its network namespace.
    pub(super) fn apply(
        &self,
        pins: &Pins,
        shared: &mut SharedState,
        source: NetworkSource,
    ) -> Result<Progress> {
        // First: users and groups that the pod's user namespace does not map are refused before
        // anything is changed, as is a move of strict mode.
        let in_kernel = settings_in_kernel(self.netns, self.settings)?;
        let existing = Existing::read(&shared.maps, self.netns.cookie())?;
        if let Some(existing) = &existing {
            uplinks::check_node(&existing.record, self.settings)?;
        }
        let netlink = Session::open()?;
        let mut txn = AttachTxn {
            netns: self.netns,
            settings: self.settings,
            in_kernel: &in_kernel,
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
            // The policy must have the current state of the routing tables. (Of a large network, it
            // gets that with the next refresh.)
            txn.existing = Existing::read(&txn.shared.maps, self.netns.cookie())?;
            txn.run(self, NetworkSource::ReadIfSmall)?;
        }
        Ok(Progress::Done(attached))
    }

    fn record(&self, network: &PodNetwork) -> Record {
        let AttachPoints {
            root,
            kubepods,
            pod,
        } = self.attach_points.names();
        Record {
            settings: self.settings.clone(),
            pod: None,
            attached_at: None,
            netns: self.netns.path().to_owned(),
            cgroup: root.path,
            cgroup_id: root.id,
            kubepods_cgroup: kubepods,
            pod_cgroup: pod,
            ipv6: network.ipv6,
            network: network.digest(),
            uplinks: Vec::new(),
            node_netns_cookie: None,
            limits: network.limits.clone(),
        }
    }
}

/// The settings with the kernel's user and group IDs, which differ from those in a pod's own user
/// namespace.
fn settings_in_kernel<'a>(netns: &Netns, settings: &'a Settings) -> Result<Cow<'a, Settings>> {
    match netns.ids()? {
        Some(ids) => ids.translate(settings).map(Cow::Owned),
        None => Ok(Cow::Borrowed(settings)),
    }
}

/// The change from the existing policy, if there is one, to the wanted one.
struct AttachTxn<'a> {
    netns: &'a Netns,
    settings: &'a Settings,
    /// The settings with the kernel's user and group IDs.
    in_kernel: &'a Settings,
    scan_listeners: bool,
    /// Whether IPv6 is captured, if that is decided already.
    ipv6: Option<bool>,
    pins: &'a Pins,
    shared: &'a mut SharedState,
    netlink: &'a Session,
    existing: Option<Existing>,
}

impl AttachTxn<'_> {
    /// Also returns whether IPv6 is captured. `None` if the network must be read first.
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
        self.register_listener_ports()?;
        let hook_was_missing = self.link(wanted.attach_points)?;
        let rescan = hook_was_missing || self.scan_listeners;
        listeners::register_open(self.cookie(), self.settings, self.shared, rescan)?;
        let watched = self.hook_interfaces(&network)?;
        let uplinks = self.guard_uplinks(&network)?;
        let known = self.existing.as_ref();
        let known = known.map(|existing| &existing.record);
        let record = Record {
            netns: self.path(),
            pod: wanted
                .pod
                .or(known.and_then(|known| known.pod.as_ref()))
                .cloned(),
            attached_at: known.map_or_else(|| Some(Timestamp::now()), |known| known.attached_at),
            uplinks: uplinks.as_ref().map(Uplinks::recorded).unwrap_or_default(),
            node_netns_cookie: uplinks.as_ref().and_then(Uplinks::node),
            ..wanted.record(&network)
        };
        let is_seen_twice = wanted.attach_points.kubepods.is_some();
        let compiled = self.compile(&network, &sources, is_seen_twice)?;
        let attached = if self.refresh_in_place(&record, &compiled.policy)? {
            Attached::Unchanged
        } else {
            let record = self.commit(compiled, record)?;
            self.compare(&record)
        };
        self.unhook_interfaces(&watched, uplinks.as_ref())?;
        if attached != Attached::Unchanged {
            self.drop_previous()?;
        }
        Ok(Some((attached, network.ipv6)))
    }

    /// What is needed to read the network without the lock.
    fn unread(&self) -> Result<Unread> {
        Ok(Unread {
            ipv6: self.ipv6,
            dual_stack: self.settings.dual_stack,
            state: self.shared.fib.state()?,
        })
    }

    /// The path for the record: the recorded one while it refers to this namespace, unless it names
    /// a process, which may exit, and the current one does not.
    fn path(&self) -> PathBuf {
        let now = self.netns.path();
        let by_process = |path: &Path| NetnsSpec::File(path.to_owned()).process().is_some();
        let is_as_good = |recorded: &&PathBuf| by_process(now) || !by_process(recorded);
        let is_current = |recorded: &&PathBuf| {
            NetnsId::of(recorded)
                .ok()
                .is_some_and(|id| self.netns.id().ok() == Some(id))
        };
        let recorded = self
            .existing
            .as_ref()
            .map(|existing| &existing.record.netns);
        let kept = recorded.filter(is_as_good).filter(is_current);
        kept.map_or_else(|| now.to_owned(), Clone::clone)
    }

    const fn cookie(&self) -> NetnsCookie {
        self.netns.cookie()
    }

    /// From now on, the programs register new listeners on the proxy's ports.
    fn register_listener_ports(&mut self) -> Result<()> {
        let (netns, is_new) = (self.cookie(), self.existing.is_none());
        // First: if this command is killed, the next one finds the namespace by its directory.
        pins::create_dir(&self.pins.netns(netns))?;
        let maps = &mut self.shared.maps;
        if is_new {
            maps.divide_among(self.pins.netns_cookies()?.len())?;
            maps.init_stand_in_counter(netns)?;
        }
        listeners::register_ports(netns, self.settings, maps)
    }

    /// Attaches the programs at the cgroups and at the network namespace. Returns whether one was
    /// missing at a cgroup.
    fn link(&mut self, attach_points: &AttachPoints) -> Result<bool> {
        let mut is_new = false;
        for (cgroup, hooks) in attach_points.with_hooks() {
            is_new |= self.shared.link(self.pins, cgroup, &hooks)?;
        }
        self.link_lookup()?;
        Ok(is_new)
    }

    fn link_lookup(&self) -> Result<()> {
        let dir = self.dir();
        if link::is_alive(hooks::LOOKUP, &dir.join(hooks::LOOKUP.program))? {
            return Ok(());
        }
        let dispatcher = dispatcher::load(&self.shared.maps, self.cookie())?;
        link::ensure(hooks::LOOKUP, &dispatcher, self.netns, &dir).map(drop)
    }

    /// Reads the pod's network, unless `source` has it, and adds the addresses, routes and rules that
    /// capture requires. `None` if the network must be read first, or again.
    fn prepare_network(&mut self, source: NetworkSource) -> Result<Option<PreparedNetwork>> {
        let (mut read, is_last) = match source {
            NetworkSource::ReadIfSmall if !network::is_small()? => return Ok(None),
            NetworkSource::ReadIfSmall | NetworkSource::Read => (None, false),
            NetworkSource::AlreadyRead { network, is_last } => (Some(network), is_last),
        };
        let settings = self.settings;
        let decided = self.ipv6.or_else(|| read.as_ref().map(|read| read.ipv6));
        let (ipv6, mut sources) = self.netlink.run(async |handle| {
            let ipv6 = if let Some(decided) = decided {
                decided
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
        let mut attempts = 0..MAX_UNSTABLE_READS;
        loop {
            // Before the routes are read: a change during the read makes the copy stale, not wrong.
            let state = self.shared.fib.state()?;
            let was_read = read.is_some();
            let network = match read.take() {
                Some(network) => network,
                None => self
                    .netlink
                    .run(async |handle| PodNetwork::read(&handle, ipv6, state).await)?,
            };
            let watches = !interfaces::watched(&network.interfaces, settings).is_empty();
            let routes = network.routes.iter();
            let new_source = sources.add_all(routes.filter_map(|route| route.lookup.source()));
            if (watches && sources.add_forwarded()) || new_source {
                // This changes the tables: read them again.
                let install = async |handle| stand_in_routes::install(&handle, &sources).await;
                self.netlink.run(install)?;
            } else if attempts.next().is_none() || self.shared.fib.state()? == network.state {
                return Ok(Some(PreparedNetwork { network, sources }));
            }
            if was_read {
                return Ok(is_last.then_some(PreparedNetwork { network, sources }));
            }
        }
    }

    /// Attaches the programs that evaluate forwarded connections.
    fn hook_interfaces(&mut self, network: &PodNetwork) -> Result<Vec<PodInterface>> {
        let watched = interfaces::watched(&network.interfaces, self.settings);
        let hooks = InterfaceHooks::forwarding(&self.dir());
        for interface in &watched {
            hooks.ensure(&mut self.shared.object, interface)?;
        }
        Ok(watched)
    }

    /// Attaches the programs of strict mode.
    fn guard_uplinks(&mut self, network: &PodNetwork) -> Result<Option<Uplinks>> {
        let dir = self.dir();
        let uplinks = Uplinks::find(self.netns, &network.interfaces, self.settings)?;
        if let Some(uplinks) = &uplinks {
            // First: the programs drop the packets of an interface that is not in the map.
            uplinks.register(self.netns, &mut self.shared.maps)?;
            uplinks.hook(&mut self.shared.object, &dir)?;
        }
        Ok(uplinks)
    }

    /// Detaches both from all other interfaces.
    fn unhook_interfaces(
        &mut self,
        watched: &[PodInterface],
        uplinks: Option<&Uplinks>,
    ) -> Result<()> {
        let dir = self.dir();
        InterfaceHooks::forwarding(&dir).retain(watched)?;
        uplinks::retain(uplinks, self.netns, &mut self.shared.maps, &dir)
    }

    /// The directory of the pod's pins.
    fn dir(&self) -> PathBuf {
        self.pins.netns(self.cookie())
    }

    fn compile(
        &mut self,
        network: &PodNetwork,
        sources: &Sources,
        is_seen_twice: bool,
    ) -> Result<CompiledPolicy> {
        let mut compiled = CompiledPolicy::new(random_id()?, self.in_kernel, network, sources);
        let flags = compiled.policy.flags;
        compiled.policy.flags = flags.with(PolicyFlags::SEEN_TWICE, is_seen_twice);
        compiled.policy.counters = match &self.existing {
            Some(existing) => existing.policy.counters,
            None => self.shared.maps.claim_counters(self.netns.cookie())?,
        };
        Ok(compiled)
    }

    /// If only the generation of the routing tables has changed, updates that in the existing policy.
    /// Returns `false` if the policy must be replaced.
    fn refresh_in_place(&mut self, record: &Record, policy: &Policy) -> Result<bool> {
        let existing = self.existing.as_ref();
        let same = existing.filter(|existing| existing.record == *record);
        let Some(refreshed) = same.and_then(|existing| existing.refreshed(policy)) else {
            return Ok(false);
        };
        if same.is_some_and(|existing| existing.policy == refreshed) {
            return Ok(true);
        }
        let netns = self.cookie();
        let policies = &mut self.shared.maps.policies;
        policies
            .insert(netns, refreshed, 0)
            .context("cannot update the policy")?;
        // The kernel may reuse the memory of the old map entry at once.
        grace::wait_for_running_programs();
        Ok(true)
    }

    /// The last step makes the policy effective.
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

    fn compare(&self, record: &Record) -> Attached {
        let Some(existing) = &self.existing else {
            return Attached::New;
        };
        let refreshed = Record {
            network: existing.record.network,
            limits: existing.record.limits.clone(),
            ..record.clone()
        };
        if existing.record == refreshed {
            Attached::Refreshed
        } else {
            Attached::Replaced
        }
    }

    /// Removes the previous policy and what only it needed.
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

    /// Removes the rules and routes that only other TPROXY or DNS settings needed. Returns whether
    /// there were any.
    fn remove_unused_tproxy(&self, ipv6: bool) -> Result<bool> {
        let needed = Delivery::of(self.settings, ipv6);
        let localhosts = localhost_routes::needed(self.settings, ipv6);
        self.netlink.run(async |handle| {
            let retired = tproxy::retire(&handle, needed).await?;
            let has_removed = localhost_routes::retire(&handle, localhosts).await?;
            Ok(has_removed || retired == Retired::Removed)
        })
    }
}

/// Commits the policy of a pod, which another build's maps have, in this build's. Otherwise changes
/// only the pod's routes, as a refresh does.
pub(super) fn migrate_pod(
    netns: &Netns,
    record: &Record,
    pins: &Pins,
    shared: &mut SharedState,
) -> Result<()> {
    netns.enter(|| {
        let settings = &record.settings;
        uplinks::check_node(record, settings)?;
        let in_kernel = settings_in_kernel(netns, settings)?;
        let mut txn = AttachTxn {
            netns,
            settings,
            in_kernel: &in_kernel,
            scan_listeners: false,
            ipv6: Some(record.ipv6),
            pins,
            shared,
            netlink: &Session::open()?,
            existing: None,
        };
        let prepared = txn.prepare_network(NetworkSource::Read)?;
        let PreparedNetwork { network, sources } =
            prepared.context("cannot read the pod's addresses and routes")?;
        if let Some(uplinks) = Uplinks::find(netns, &network.interfaces, settings)? {
            uplinks.register(netns, &mut txn.shared.maps)?;
        }
        let compiled = txn.compile(&network, &sources, record.kubepods_cgroup.is_some())?;
        let migrated = Record {
            network: network.digest(),
            limits: network.limits.clone(),
            ..record.clone()
        };
        txn.commit(compiled, migrated).map(drop)
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
