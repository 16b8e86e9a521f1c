//! The shared maps, opened by their pins.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, SockHash, lpm_trie::Key},
};
use interceptor_ebpf::{
    Address, ForwardKey, GroupKey, Interface, InterfaceKey, ListenerKey, ListenerPort,
    ListenerPortKey, NetnsCookie, PodCounts, Policy, PolicyId, PortPage, PortPageKey, PrefixFlags,
    PrefixKey, Route, SETTINGS_CHUNK, SettingsKey, Share, SlotKey, StandInEntry, StandInNumber,
    StandInUsage, Uplink, UplinkKey,
};

use super::{layout, other_builds, pins, sys};

/// Every shared map.
pub struct Maps {
    /// The policy of each captured network namespace.
    pub policies: HashMap<MapData, NetnsCookie, Policy>,
    /// The port lists of the policies.
    pub ports: HashMap<MapData, PortPageKey, PortPage>,
    /// The included and excluded prefixes of the policies.
    pub prefixes: LpmTrie<MapData, PrefixKey, PrefixFlags>,
    /// The routes of the pods.
    pub routes: LpmTrie<MapData, PrefixKey, Route>,
    /// The same map, for a query that aya does not have: the keys after a key.
    routes_by_key: MapData,
    /// The owner groups that the policies list.
    pub groups: HashMap<MapData, GroupKey, u8>,
    /// The interfaces of the pods.
    pub interfaces: HashMap<MapData, InterfaceKey, Interface>,
    /// The interfaces at which strict mode is enforced.
    pub uplinks: HashMap<MapData, UplinkKey, Uplink>,
    /// The records.
    pub settings: HashMap<MapData, SettingsKey, [u8; SETTINGS_CHUNK]>,
    /// The next stand-in number of each pod.
    pub next_stand_in: HashMap<MapData, NetnsCookie, StandInNumber>,
    /// The stand-ins that each pod has used.
    pub stand_in_usage: HashMap<MapData, NetnsCookie, StandInUsage>,
    /// The share of the node-wide tables that one pod may use.
    pub share: Array<MapData, Share>,
    /// The stand-in of a destination.
    pub forward: HashMap<MapData, ForwardKey, StandInNumber>,
    /// The destination of a stand-in.
    pub stand_ins: HashMap<MapData, SlotKey, StandInEntry>,
    /// The ports whose listeners are registered, with the slots to look at first.
    pub listener_ports: HashMap<MapData, ListenerPortKey, ListenerPort>,
    /// The counters of each pod's connections.
    pub pod_counts: Array<MapData, PodCounts>,
    /// The proxies' listening sockets.
    pub listeners: SockHash<MapData, ListenerKey>,
    /// The arguments of the program of a network namespace to the shared program.
    pub calls: MapData,
    /// The shared program.
    pub shared: MapData,
}

impl Maps {
    /// Opens the maps if all of them are pinned in `dir`. If not, no pod is attached: they are created
    /// before the first pod and removed after the last.
    pub fn open_if_complete(dir: &Path) -> Result<Option<Self>> {
        if other_builds::has_policies(dir)? {
            bail!(
                "pods are attached by another build, or an upgrade was interrupted: run `interceptor \
                 agent` or `interceptor attach` of this build, which upgrades all attached pods"
            );
        }
        if Self::are_complete(dir)? {
            Self::open(dir).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether all maps are pinned in `dir`.
    pub fn are_complete(dir: &Path) -> Result<bool> {
        for (_, pin) in layout::pins() {
            if !pins::exists(&dir.join(pin))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens the maps that are pinned in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            policies: hash_map(dir, "icept_policies")?,
            ports: hash_map(dir, "icept_ports")?,
            prefixes: lpm_trie(dir, "icept_prefixes")?,
            routes: lpm_trie(dir, "icept_routes")?,
            routes_by_key: open(dir, "icept_routes")?,
            groups: hash_map(dir, "icept_groups")?,
            interfaces: hash_map(dir, "icept_ifaces")?,
            uplinks: hash_map(dir, "icept_uplinks")?,
            settings: hash_map(dir, "icept_settings")?,
            next_stand_in: hash_map(dir, "icept_next")?,
            stand_in_usage: hash_map(dir, "icept_usage")?,
            share: Map::Array(open(dir, "icept_share")?).try_into()?,
            forward: hash_map(dir, "icept_forward")?,
            stand_ins: hash_map(dir, "icept_stand_ins")?,
            listener_ports: hash_map(dir, "icept_lports")?,
            pod_counts: Map::Array(open(dir, layout::POD_COUNTS)?).try_into()?,
            listeners: Map::SockHash(open(dir, "icept_listeners")?).try_into()?,
            calls: open(dir, "icept_calls")?,
            shared: open(dir, "icept_shared")?,
        })
    }

    /// Removes the entries and records of all policies that match.
    pub fn remove_policy_entries(&mut self, matches: impl Fn(PolicyId) -> bool) -> Result<()> {
        remove_matching(&mut self.ports, |key| matches(key.policy))?;
        remove_matching(&mut self.groups, |key| matches(key.policy))?;
        remove_matching(&mut self.interfaces, |key| matches(key.policy))?;
        remove_matching(&mut self.settings, |key| matches(key.policy))?;
        remove_prefixes(&mut self.prefixes, &matches)?;
        remove_prefixes(&mut self.routes, &matches)
    }

    /// Removes pages of ports.
    pub fn remove_ports(&mut self, keys: &[PortPageKey]) -> Result<()> {
        keys.iter()
            .try_for_each(|key| ignore_missing(self.ports.remove(key)))
    }

    /// Removes prefixes, each with its length in the address's 128 bits.
    pub fn remove_prefixes(&mut self, keys: &[(PrefixKey, u8)]) -> Result<()> {
        keys.iter()
            .map(|(key, length)| prefix_key(*key, *length))
            .try_for_each(|key| ignore_missing(self.prefixes.remove(&key)))
    }

    /// Removes routes, each with its length in the address's 128 bits.
    pub fn remove_routes(&mut self, routes: &[(PrefixKey, u8, Route)]) -> Result<()> {
        routes
            .iter()
            .map(|(key, length, _)| prefix_key(*key, *length))
            .try_for_each(|key| ignore_missing(self.routes.remove(&key)))
    }

    /// Removes the owner groups and interfaces of a policy. These tables are small.
    pub fn remove_groups_and_interfaces(&mut self, policy: PolicyId) -> Result<()> {
        remove_matching(&mut self.groups, |key| key.policy == policy)?;
        remove_matching(&mut self.interfaces, |key| key.policy == policy)
    }

    /// Removes the routes of a policy, starting with that of the address `first`, if it has one.
    ///
    /// The kernel lists a trie in postorder (`trie_get_next_key`): prefixes with the same leading bits,
    /// such as those of one policy, are consecutive, and the all-zero address comes first. After a key
    /// that does not exist, the kernel returns the first key of the whole table.
    pub fn remove_routes_from(&mut self, policy: PolicyId, first: Address) -> Result<()> {
        let address = first;
        let first = Key::new(PrefixKey::BITS, PrefixKey { policy, address });
        let mut last = bytes_of(&first);
        let mut keys = Vec::new();
        while let Some(next) = sys::map_next_key(self.routes_by_key.fd(), Some(&last), last.len())
            .context("cannot list the routes of a policy")?
            && let Some(key) = key_of(&next)
            && key.data().policy == policy
        {
            keys.push(key);
            last = next;
        }
        // The first is removed last: without it the others would not be found again.
        keys.push(first);
        keys.iter()
            .try_for_each(|key| ignore_missing(self.routes.remove(key)))
    }
}

fn open(dir: &Path, name: &'static str) -> Result<MapData> {
    let pin = dir.join(layout::pin(name));
    MapData::from_pin(&pin).with_context(|| format!("cannot open the map {}", pin.display()))
}

fn hash_map<K: Pod, V: Pod>(dir: &Path, name: &'static str) -> Result<HashMap<MapData, K, V>> {
    Map::HashMap(open(dir, name)?)
        .try_into()
        .with_context(|| format!("the map {name} has a different layout: another build created it"))
}

fn lpm_trie<K: Pod, V: Pod>(dir: &Path, name: &'static str) -> Result<LpmTrie<MapData, K, V>> {
    Map::LpmTrie(open(dir, name)?)
        .try_into()
        .with_context(|| format!("the map {name} has a different layout: another build created it"))
}

fn remove_matching<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    matches: impl Fn(&K) -> bool,
) -> Result<()> {
    let keys = map
        .keys()
        .filter(|key| key.as_ref().map_or(true, &matches))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot list a map")?;
    keys.iter()
        .try_for_each(|key| ignore_missing(map.remove(key)))
}

fn remove_prefixes<V: Pod>(
    trie: &mut LpmTrie<MapData, PrefixKey, V>,
    matches: &impl Fn(PolicyId) -> bool,
) -> Result<()> {
    let keys = trie
        .keys()
        .filter(|key| key.as_ref().map_or(true, |key| matches(key.data().policy)))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot list a prefix map")?;
    keys.iter()
        .try_for_each(|key| ignore_missing(trie.remove(key)))
}

/// A key in the kernel's representation.
fn bytes_of(key: &Key<PrefixKey>) -> Vec<u8> {
    let PrefixKey { policy, address } = key.data();
    [key.prefix_len(), policy]
        .into_iter()
        .chain(address.words())
        .flat_map(u32::to_ne_bytes)
        .collect()
}

fn key_of(bytes: &[u8]) -> Option<Key<PrefixKey>> {
    let (words, _) = bytes.as_chunks::<4>();
    let [length, policy, address @ ..] = words else {
        return None;
    };
    let address: [_; 4] = address.try_into().ok()?;
    let address = Address::from_words(address.map(u32::from_ne_bytes));
    let policy = u32::from_ne_bytes(*policy);
    let length = u32::from_ne_bytes(*length);
    Some(Key::new(length, PrefixKey { policy, address }))
}

/// Ignores that an entry does not exist: another command may have removed it.
pub(super) fn ignore_missing(result: Result<(), MapError>) -> Result<()> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        result => result.context("cannot remove a map entry"),
    }
}

/// Whether the error is that an entry does not exist.
pub(crate) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// The key of a prefix of `length` bits, counted in the 128 bits of the address.
#[must_use]
pub fn prefix_key(key: PrefixKey, length: u8) -> Key<PrefixKey> {
    Key::new(PrefixKey::POLICY_BITS + u32::from(length), key)
}
