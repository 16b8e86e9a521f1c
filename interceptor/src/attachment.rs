//! Attaching a network namespace, replacing what it is attached with, and detaching it.
//!
//! Everything is put in place before the policy, and the policy comes into force by one update of
//! one map: a connection is either before it or after it. Every step may be repeated, so that an
//! attach that was killed is completed by the next.

use std::{io, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::MapError;
use aya_obj::generated::BPF_NOEXIST;
use interceptor_ebpf::{DNS_PORT, ListenerPortKey, NetnsCookie, Policy, PolicyFlags, PolicyId};
use tracing::warn;

use crate::{
    bpf::{
        dispatcher, fib, grace,
        hooks::{self, Hook},
        link, listeners,
        maps::{Maps, prefix_key},
        object::Object,
        pins::{self, Pins},
        programs, watch,
    },
    cgroup::{Cgroup, Hierarchy},
    host,
    netns::{
        Netns, NetnsSpec,
        addresses::{self, add_passthrough_v6, remove_passthrough_v6},
        interfaces::{self, PodInterface},
        netlink,
        network::PodNetwork,
        stand_in_routes::{self, Sources},
        tproxy::{self, Delivery, Retired},
    },
    policy::CompiledPolicy,
    processes,
    record::Record,
    settings::{DnsCapture, Settings},
    upgrade,
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

/// What a network namespace is attached with already.
struct Before {
    policy: Policy,
    record: Record,
}

impl Before {
    fn read(pins: &Pins, netns: NetnsCookie) -> Result<Option<Self>> {
        let Some(maps) = Maps::open_if_complete(&pins.maps())? else {
            return Ok(None);
        };
        let Some(policy) = policy_of(&maps, netns)? else {
            return Ok(None);
        };
        let record = Record::load(&maps, policy.id)?;
        Ok(Some(Self { policy, record }))
    }

    /// The policy in force, if it differs from `now` in nothing but its name and the generation of
    /// the routing tables, which it takes over. (Equal settings make equal lists.)
    fn renewed(&self, now: &Policy) -> Option<Policy> {
        let renewed = Policy {
            fib: now.fib,
            ..self.policy
        };
        let named_alike = Policy {
            id: self.policy.id,
            ..*now
        };
        (renewed == named_alike).then_some(renewed)
    }

    /// The ports whose listeners are noted.
    fn listener_ports(&self) -> Vec<u16> {
        listener_ports(&self.record.settings)
    }
}

/// The policy of `netns`, if it is attached.
pub fn policy_of(maps: &Maps, netns: NetnsCookie) -> Result<Option<Policy>> {
    match maps.policies.get(&netns, 0) {
        Ok(policy) => Ok(Some(policy)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context("cannot read the policies"),
    }
}

/// What to attach, where, and how.
#[derive(Debug)]
pub struct Attachment<'a> {
    /// The pod.
    pub netns: &'a Netns,
    /// Where its sockets are seen.
    pub cgroup: &'a Cgroup,
    /// The hierarchy that the cgroup is in.
    pub hierarchy: &'a Hierarchy,
    /// What is captured.
    pub settings: &'a Settings,
    /// Whether every verdict is told to [`crate::bpf::log`].
    pub log: bool,
}

impl Attachment<'_> {
    /// Attaches the pod. In force when this returns; if it fails, nothing has changed for the pod.
    pub fn attach(&self) -> Result<Attached> {
        let pins = Pins::new();
        let _lock = host::lock()?;
        upgrade::take_over(&pins)?;
        processes::check_covered(self.netns, self.cgroup, self.hierarchy)?;
        let before = Before::read(&pins, self.netns.cookie())?;
        self.change(&pins, before.as_ref())
    }

    /// Goes from what was before to what is to be, under the lock.
    fn change(&self, pins: &Pins, before: Option<&Before>) -> Result<Attached> {
        if Maps::open_if_complete(&pins.maps())?.is_none() {
            // Left by a command that was killed: programs with maps that nobody can reach.
            pins.remove_all()?;
        }
        let unfinished = pins.begin_change()?;
        let result = self
            .establish(pins, before)
            .and_then(|attached| self.settle(pins, attached));
        if result.is_err() && before.is_none() {
            // Nothing half-done stays; the first error is the one that tells.
            let _undone = undo(pins, self.netns);
        }
        tidy(pins, unfinished || result.is_err())?;
        result
    }

    fn establish(&self, pins: &Pins, before: Option<&Before>) -> Result<Attached> {
        pins.create()?;
        let mut object = Object::load(pins)?;
        let mut maps = Maps::open(&pins.maps())?;
        let programs = programs::shared(&mut object, pins)?;
        let dispatcher = dispatcher::load(&object, self.netns.cookie())?;
        self.note_listeners(before, &mut maps)?;
        self.attach_cgroup(pins, &programs)?;
        self.attach_netns(pins, &dispatcher)?;
        if before.is_none_or(|before| before.record.settings != *self.settings) {
            self.note_open_listeners(before, &mut object)?;
        }
        let prepared = self.prepare_network(&mut object)?;
        let Prepared { network, sources } = &prepared;
        let watched = self.watch(pins, &mut object, network)?;
        let record = self.record(network);
        let mut compiled = CompiledPolicy::new(random_id()?, self.settings, network, sources);
        let flags = compiled.policy.flags;
        compiled.policy.flags = flags.with(PolicyFlags::LOG, self.log);
        if let Some(before) = before
            && before.record == record
            && let Some(policy) = before.renewed(&compiled.policy)
        {
            maps.policies
                .insert(self.netns.cookie(), policy, 0)
                .context("cannot renew the policy")?;
            self.unwatch(pins, network, &watched)?;
            return Ok(Attached::Unchanged);
        }
        self.put_in_force(&mut maps, &compiled, &record)?;
        self.unwatch(pins, network, &watched)?;
        match before {
            Some(before) => {
                self.forget(before, &mut maps)?;
                let alike = Record {
                    network: before.record.network,
                    ..record
                };
                Ok(if before.record == alike {
                    Attached::Refreshed
                } else {
                    Attached::Replaced
                })
            }
            None => Ok(Attached::New),
        }
    }

    /// Takes away what only other TPROXY settings took. That changes the routing tables, whose state
    /// the policy is to know.
    fn settle(&self, pins: &Pins, attached: Attached) -> Result<Attached> {
        let retired = self.netns.run(|| {
            netlink::run(async |handle| {
                let addresses = addresses::list(&handle).await?;
                let ipv6 = addresses::captures_ipv6(&addresses, self.settings.dual_stack)?;
                tproxy::retire(&handle, Delivery::of(self.settings, ipv6)).await
            })
        })?;
        if retired == Retired::Removed {
            let now = Before::read(pins, self.netns.cookie())?;
            self.establish(pins, now.as_ref())?;
        }
        Ok(attached)
    }

    /// From now on, who listens on the proxy's ports is noted.
    fn note_listeners(&self, before: Option<&Before>, maps: &mut Maps) -> Result<()> {
        if before.is_none() {
            // Left by an attach that was killed.
            maps.remove_netns_state(self.netns.cookie())?;
            make_room(self.netns.cookie(), maps)?;
        }
        note_ports(self.netns, self.settings, maps)
    }

    /// Those that listened before are noted too, unless they have been.
    fn note_open_listeners(&self, before: Option<&Before>, object: &mut Object) -> Result<()> {
        let known = before.map(Before::listener_ports);
        if known.is_some_and(|known| {
            listener_ports(self.settings)
                .iter()
                .all(|port| known.contains(port))
        }) {
            return Ok(());
        }
        self.netns.run(|| listeners::note_open(object))
    }

    fn attach_cgroup(&self, pins: &Pins, programs: &[(Hook, OwnedFd)]) -> Result<()> {
        let path = self.cgroup.path();
        for (hook, _) in programs {
            link::check_not_shut_out(*hook, path, &self.hierarchy.mount)?;
        }
        let folder = pins.cgroup(self.cgroup.id());
        pins::create_folder(&folder)?;
        programs.iter().try_for_each(|(hook, program)| {
            link::ensure(*hook, program, self.cgroup, &folder)
                .with_context(|| format!("at the cgroup {}", path.display()))
        })
    }

    fn attach_netns(&self, pins: &Pins, dispatcher: &OwnedFd) -> Result<()> {
        let folder = pins.netns(self.netns.cookie());
        pins::create_folder(&folder)?;
        link::ensure(hooks::LOOKUP, dispatcher, self.netns, &folder)
    }

    /// Has our programs see what would be forwarded through the pod.
    fn watch(
        &self,
        pins: &Pins,
        object: &mut Object,
        network: &PodNetwork,
    ) -> Result<Vec<PodInterface>> {
        let watched = interfaces::watched(&network.interfaces, self.settings);
        let folder = pins.netns(self.netns.cookie());
        self.netns.run(|| {
            watched
                .iter()
                .try_for_each(|interface| watch::ensure(object, interface, &folder))
        })?;
        Ok(watched)
    }

    /// Takes the programs away from where the policy in force does not need them.
    fn unwatch(&self, pins: &Pins, network: &PodNetwork, watched: &[PodInterface]) -> Result<()> {
        let folder = pins.netns(self.netns.cookie());
        self.netns
            .run(|| watch::retain(&network.interfaces, watched, &folder))
    }

    /// Asks for the pod's network and puts into it what capturing takes.
    fn prepare_network(&self, object: &mut Object) -> Result<Prepared> {
        self.netns.run(|| {
            let dual_stack = self.settings.dual_stack;
            let (ipv6, mut sources) = netlink::run(async |handle| {
                let addresses = addresses::list(&handle).await?;
                let ipv6 = addresses::captures_ipv6(&addresses, dual_stack)?;
                if ipv6 {
                    add_passthrough_v6(&handle).await?;
                }
                if let Some(delivery) = Delivery::of(self.settings, ipv6) {
                    tproxy::install(&handle, delivery).await?;
                }
                Ok((ipv6, stand_in_routes::read(&handle).await?))
            })?;
            let mut tries = 0..TRIES_FOR_A_STILL_NETWORK;
            loop {
                // Before the routes are asked: what changes meanwhile makes the copy stale, not
                // wrong.
                let state = fib::state(object)?;
                let network =
                    netlink::run(async |handle| PodNetwork::read(&handle, ipv6, state).await)?;
                let watches = !interfaces::watched(&network.interfaces, self.settings).is_empty();
                let answers = network.routes.iter();
                let new_source = sources.add_all(answers.filter_map(|answer| answer.way.source()));
                if (watches && sources.add_beyond()) || new_source {
                    // Which changes the tables: ask once more.
                    netlink::run(async |handle| stand_in_routes::install(&handle, &sources).await)?;
                } else if tries.next().is_none() || fib::state(object)? == state {
                    return Ok(Prepared { network, sources });
                }
            }
        })
    }

    fn record(&self, network: &PodNetwork) -> Record {
        Record {
            settings: self.settings.clone(),
            netns: self.netns.path().to_owned(),
            cgroup: self.cgroup.path().to_owned(),
            cgroup_id: self.cgroup.id(),
            ipv6: network.ipv6,
            network: network.digest(),
        }
    }

    /// The last step is the one that counts.
    fn put_in_force(
        &self,
        maps: &mut Maps,
        compiled: &CompiledPolicy,
        record: &Record,
    ) -> Result<()> {
        let full = "the policy does not fit into the maps";
        for (key, page) in &compiled.ports {
            maps.ports.insert(key, page, 0).context(full)?;
        }
        for (key, length, flags) in &compiled.prefixes {
            let key = prefix_key(*key, *length);
            maps.prefixes.insert(&key, flags, 0).context(full)?;
        }
        for (key, length, route) in &compiled.routes {
            let key = prefix_key(*key, *length);
            maps.routes.insert(&key, route, 0).context(full)?;
        }
        for key in &compiled.groups {
            maps.groups.insert(key, 1, 0).context(full)?;
        }
        for (key, interface) in &compiled.interfaces {
            maps.interfaces.insert(key, interface, 0).context(full)?;
        }
        record.store(maps, compiled.policy.id)?;
        maps.policies
            .insert(self.netns.cookie(), compiled.policy, 0)
            .context(full)
    }

    /// Takes away what only the policy before needed.
    fn forget(&self, before: &Before, maps: &mut Maps) -> Result<()> {
        grace::wait_for_running_programs();
        maps.remove_policy_lists(|id| id == before.policy.id)?;
        let ports = listener_ports(self.settings);
        for port in before.listener_ports() {
            if !ports.contains(&port) {
                let netns = self.netns.cookie();
                let _gone = maps
                    .listener_ports
                    .remove(&ListenerPortKey::new(netns, port));
                maps.remove_listeners(|key| key.netns == netns && key.port == port)?;
            }
        }
        Ok(())
    }
}

/// Puts into force in these maps what the pod is attached with in those of another build. Changes
/// nothing but the maps, and the pod's routes as a refresh does.
pub(crate) fn adopt(
    netns: &Netns,
    record: &Record,
    pins: &Pins,
    object: &mut Object,
    maps: &mut Maps,
) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let attachment = Attachment {
        netns,
        // The links stay where they are.
        cgroup: &Cgroup::open(&hierarchy, None)?,
        hierarchy: &hierarchy,
        settings: &record.settings,
        log: false,
    };
    let Prepared { network, sources } = attachment.prepare_network(object)?;
    let compiled = CompiledPolicy::new(random_id()?, &record.settings, &network, &sources);
    let adopted = Record {
        ipv6: network.ipv6,
        network: network.digest(),
        ..record.clone()
    };
    attachment.put_in_force(maps, &compiled, &adopted)?;
    // Where they are filters, they are replaced here: the policy is there before.
    attachment.watch(pins, object, &network).map(drop)
}

/// Begins to count a pod's stand-ins somewhere, unless they are counted.
pub(crate) fn make_room(netns: NetnsCookie, maps: &mut Maps) -> Result<()> {
    let next = random_number()? >> 1;
    match maps.next_stand_in.insert(netns, next, BPF_NOEXIST.into()) {
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        result => result.context("cannot make room for the pod's stand-ins"),
    }
}

/// Notes who listens on the proxy's ports, from now on and already.
pub(crate) fn note_all_listeners(
    netns: &Netns,
    settings: &Settings,
    object: &mut Object,
    maps: &mut Maps,
) -> Result<()> {
    note_ports(netns, settings, maps)?;
    netns.run(|| listeners::note_open(object))
}

fn note_ports(netns: &Netns, settings: &Settings, maps: &mut Maps) -> Result<()> {
    for port in listener_ports(settings) {
        maps.listener_ports
            .insert(ListenerPortKey::new(netns.cookie(), port), 1, 0)
            .context("cannot make room for the proxy's listeners")?;
    }
    Ok(())
}

/// Takes over what another build has attached, pod by pod, if there is anything. Answers whether
/// there was. Every change begins with it; this is for who would rather have it done at once.
pub fn take_over() -> Result<bool> {
    let pins = Pins::new();
    let _lock = host::lock()?;
    let is_changed = upgrade::take_over(&pins)?;
    if is_changed {
        tidy(&pins, true)?;
    }
    Ok(is_changed)
}

/// Attaches `netns` as it is attached, which follows what has changed of its addresses and routes.
/// `None` if it is not attached.
pub fn refresh(netns: &Netns) -> Result<Option<Attached>> {
    let pins = Pins::new();
    let _lock = host::lock()?;
    upgrade::take_over(&pins)?;
    let Some(before) = Before::read(&pins, netns.cookie())? else {
        return Ok(None);
    };
    let hierarchy = Hierarchy::find()?;
    let cgroup = Cgroup::open(&hierarchy, Some(&before.record.cgroup))?;
    let attachment = Attachment {
        netns,
        cgroup: &cgroup,
        hierarchy: &hierarchy,
        settings: &before.record.settings,
        log: before.policy.flags.contains(PolicyFlags::LOG),
    };
    attachment.change(&pins, Some(&before)).map(Some)
}

/// The ports whose listeners are the proxy's.
fn listener_ports(settings: &Settings) -> Vec<u16> {
    let mut ports = vec![settings.outbound_port, settings.inbound_port];
    if settings.dns != DnsCapture::Off {
        ports.push(DNS_PORT);
    }
    ports
}

fn random_number() -> Result<u64> {
    getrandom::u64().context("the kernel gives no random numbers")
}

fn random_id() -> Result<PolicyId> {
    getrandom::u32().context("the kernel gives no random numbers")
}

/// A pod's network, with `::6` added and the stand-in routes read.
struct Prepared {
    network: PodNetwork,
    sources: Sources,
}

/// What became of a detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Whether the network namespace was attached.
    pub was_attached: bool,
    /// Whether routes stay for open connections; the next attach or detach takes them away.
    pub keeps_routes: bool,
}

/// Detaches `netns`.
pub fn detach(netns: &Netns) -> Result<Detached> {
    let pins = Pins::new();
    let _lock = host::lock()?;
    if !pins.exist() {
        return undo(&pins, netns);
    }
    upgrade::take_over(&pins)?;
    let unfinished = pins.begin_change()?;
    let detached = undo(&pins, netns)?;
    tidy(&pins, unfinished)?;
    Ok(detached)
}

/// Takes away all that an attach makes. The policy goes first: from then on nothing is captured,
/// and the rest is not looked at.
fn undo(pins: &Pins, netns: &Netns) -> Result<Detached> {
    let mut was_attached = false;
    if let Some(mut maps) = Maps::open_if_complete(&pins.maps())? {
        was_attached = policy_of(&maps, netns.cookie())?.is_some();
        remove_policy(&mut maps, netns.cookie())?;
        unwatch_all(netns, &pins.netns(netns.cookie()))?;
        remove_netns(pins, &mut maps, netns.cookie())?;
    }
    let keeps_routes = netns.run(|| {
        netlink::run(async |handle| {
            remove_passthrough_v6(&handle).await?;
            let retired = tproxy::retire(&handle, None).await?;
            let keeps_stand_ins = stand_in_routes::remove(&handle).await?;
            Ok(keeps_stand_ins || retired == Retired::Kept)
        })
    })?;
    Ok(Detached {
        was_attached,
        keeps_routes,
    })
}

/// Takes our programs away from the interfaces of a network namespace, whose pins are in `folder`.
fn unwatch_all(netns: &Netns, folder: &Path) -> Result<()> {
    netns.run(|| {
        let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
        watch::retain(&interfaces, &[], folder)
    })
}

/// Takes away what is kept outside the network namespace, which may be gone.
fn remove_netns(pins: &Pins, maps: &mut Maps, netns: NetnsCookie) -> Result<()> {
    remove_policy(maps, netns)?;
    pins::remove_tree(&pins.netns(netns))?;
    maps.remove_netns_state(netns)
}

/// From here on nothing is captured.
fn remove_policy(maps: &mut Maps, netns: NetnsCookie) -> Result<()> {
    let policy = policy_of(maps, netns)?;
    if let Some(Policy { id, .. }) = policy {
        maps.policies
            .remove(&netns)
            .context("cannot remove the policy")?;
        grace::wait_for_running_programs();
        maps.remove_policy_lists(|other| other == id)?;
    }
    Ok(())
}

/// Detaches every network namespace and removes everything of ours. Answers how many there were.
pub fn detach_all() -> Result<usize> {
    let pins = Pins::new();
    let _lock = host::lock()?;
    if let Err(error) = upgrade::take_over(&pins) {
        warn!("{error:#}");
        pins.remove_all()?;
    }
    let mut count = 0;
    if let Some(mut maps) = Maps::open_if_complete(&pins.maps())? {
        for (cookie, policy) in attached(&maps)? {
            match open_attached(&pins, &maps, cookie, policy) {
                Some(netns) => undo(&pins, &netns).map(drop)?,
                None => remove_netns(&pins, &mut maps, cookie)?,
            }
            count += 1;
        }
    }
    pins.remove_all()?;
    Ok(count)
}

/// Opens an attached network namespace: by the path that it had, if that still leads there, else by
/// way of a process that is in it.
pub(crate) fn open_attached(
    pins: &Pins,
    maps: &Maps,
    cookie: NetnsCookie,
    policy: PolicyId,
) -> Option<Netns> {
    let by_path = Record::load(maps, policy)
        .and_then(|record| Netns::open(&NetnsSpec::File(record.netns)))
        .ok()
        .filter(|netns| netns.cookie() == cookie);
    by_path.or_else(|| {
        let pin = pins.netns(cookie).join(hooks::LOOKUP.program);
        Netns::find(link::netns_inode(&pin).ok()?, cookie)
    })
}

/// Every attached network namespace with its policy.
pub fn attached(maps: &Maps) -> Result<Vec<(NetnsCookie, PolicyId)>> {
    maps.policies
        .iter()
        .map(|entry| entry.map(|(cookie, policy)| (cookie, policy.id)))
        .collect::<Result<_, _>>()
        .context("cannot list the policies")
}

/// Ends a change: takes away what nothing needs any more. That is network namespaces that are gone,
/// links to cgroups that no pod is attached at, with the last pod everything, and if `unfinished`
/// lists of policies that never came into force or were not taken away.
fn tidy(pins: &Pins, unfinished: bool) -> Result<()> {
    let Some(mut maps) = Maps::open_if_complete(&pins.maps())? else {
        return pins.remove_all();
    };
    for cookie in pins.netns_cookies()? {
        let pin = pins.netns(cookie).join(hooks::LOOKUP.program);
        let attached = policy_of(&maps, cookie)?.is_some();
        if !attached || !link::is_alive(hooks::LOOKUP, &pin)? {
            remove_netns(pins, &mut maps, cookie)?;
        }
    }
    let policies = attached(&maps)?;
    if policies.is_empty() {
        return pins.remove_all();
    }
    if unfinished {
        let in_force: Vec<_> = policies.iter().map(|(_, policy)| *policy).collect();
        maps.remove_policy_lists(|policy| !in_force.contains(&policy))?;
    }
    let used = policies
        .iter()
        .map(|(_, policy)| Ok(Record::load(&maps, *policy)?.cgroup_id))
        .collect::<Result<Vec<_>>>()?;
    for id in pins.cgroup_ids()? {
        if !used.contains(&id) {
            pins::remove_tree(&pins.cgroup(id))?;
        }
    }
    pins.finish_change()
}
