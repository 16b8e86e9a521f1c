//! The state of a pod beside its policy: its stand-ins, its proxy's listeners, and its share of both
//! tables. An operation on one pod takes time in proportion to the pod's entries, however full the
//! tables are.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use aya_obj::generated::BPF_NOEXIST;
use interceptor_ebpf::{
    ForwardKey, ListenerAddress, ListenerKey, ListenerPort, ListenerPortKey, MAX_LISTENER_SLOTS,
    MAX_STAND_INS, NetnsCookie, Share, StandInNumber, StandInUsage, UplinkKey, slot_key,
};

use super::{
    grace,
    maps::{Maps, ignore_missing},
    pins::Pins,
};

impl Maps {
    /// Divides the tables among `pods` pods, and evicts entries of pods that exceed their share. Must be
    /// called before the last of those pods is attached.
    pub fn divide_among(&mut self, pods: usize) -> Result<()> {
        let share = Share::of(u32::try_from(pods).unwrap_or(u32::MAX));
        let previous = self
            .share
            .get(&0, 0)
            .context("cannot read the share of one pod from the map icept_share")?;
        if share == previous {
            return Ok(());
        }
        self.share
            .set(0, share, 0)
            .context("cannot write the share of one pod to the map icept_share")?;
        let shrinks = share.stand_ins < previous.stand_ins;
        if shrinks || share.listener_slots < previous.listener_slots {
            // Programs that run now may have read the previous share.
            grace::wait_for_running_programs();
            self.shrink_to(share)?;
        }
        Ok(())
    }

    fn shrink_to(&mut self, share: Share) -> Result<()> {
        let pods: Vec<_> = self.next_stand_in.keys().collect::<Result<_, _>>()?;
        for netns in pods {
            self.evict_stand_ins(netns, share.stand_ins.into())?;
        }
        for (key, port) in self.ports_with_listeners(|_| true)? {
            let first = u16::try_from(share.listener_slots).unwrap_or(MAX_LISTENER_SLOTS);
            self.remove_sockets(key, &port, first)?;
        }
        Ok(())
    }

    /// Starts the counter of a pod's stand-ins at a random number, unless it has one.
    pub fn init_stand_in_counter(&mut self, netns: NetnsCookie) -> Result<()> {
        // Far from 0, which is not a valid number.
        let random = getrandom::u64().context("getrandom failed")?;
        let number: StandInNumber = (random >> 1) | (1 << 32);
        let failed = "cannot create the stand-in counter of the pod: the map icept_next is full or unavailable";
        insert_new(&mut self.next_stand_in, netns, number).context(failed)?;
        let next = self.next_stand_in.get(&netns, 0).context(failed)?;
        // Another build may have started the counter.
        let first = if next == number {
            number
        } else {
            next.wrapping_sub(MAX_STAND_INS.into())
        };
        let usage = StandInUsage { first, evicted: 0 };
        insert_new(&mut self.stand_in_usage, netns, usage).context(failed)
    }

    /// The number of a pod's stand-ins that were evicted because it needed more than its share.
    #[must_use]
    pub fn evicted_stand_ins(&self, netns: NetnsCookie) -> u64 {
        self.stand_in_usage
            .get(&netns, 0)
            .map_or(0, |usage| usage.evicted)
    }

    /// From now on, the programs register listeners on `port`.
    pub fn register_port(&mut self, netns: NetnsCookie, port: u16) -> Result<()> {
        let key = ListenerPortKey::new(netns, port);
        // An existing entry is kept: without it no listener would be found.
        insert_new(&mut self.listener_ports, key, ListenerPort::default())
            .context("cannot add a port of the proxy: the listener port map is full or unavailable")
    }

    /// Whether a listener on `port` was ever registered.
    #[must_use]
    pub fn has_listeners(&self, netns: NetnsCookie, port: u16) -> bool {
        let known = self
            .listener_ports
            .get(&ListenerPortKey::new(netns, port), 0);
        known.is_ok_and(|port| port.found.iter().any(|slot| *slot != 0))
    }

    /// Removes the interfaces at which strict mode is enforced for a pod, except those in `kept`.
    pub fn retain_uplinks(&mut self, pod: NetnsCookie, kept: &[UplinkKey]) -> Result<()> {
        let entries = self.uplinks.iter().collect::<Result<Vec<_>, _>>();
        let entries = entries.context("cannot list the interfaces of strict mode")?;
        for (key, uplink) in entries {
            if uplink.pod == pod && !kept.contains(&key) {
                ignore_missing(self.uplinks.remove(&key))?;
            }
        }
        Ok(())
    }

    /// Removes the state of a network namespace except its policy.
    pub fn remove_netns_state(&mut self, netns: NetnsCookie) -> Result<()> {
        self.retain_uplinks(netns, &[])?;
        self.remove_listeners(|key| key.netns == netns)?;
        self.evict_stand_ins(netns, 0)?;
        ignore_missing(self.stand_in_usage.remove(&netns))?;
        ignore_missing(self.next_stand_in.remove(&netns))
    }

    /// Removes the ports that match, and their listeners.
    pub fn remove_listeners(&mut self, matches: impl Fn(&ListenerPortKey) -> bool) -> Result<()> {
        for (key, port) in self.ports_with_listeners(matches)? {
            // From here on, no listener of the port is registered. (A socket that is registered right
            // now may stay, in a slot of its own, until it closes.)
            ignore_missing(self.listener_ports.remove(&key))?;
            self.remove_sockets(key, &port, 0)?;
        }
        Ok(())
    }

    fn ports_with_listeners(
        &self,
        matches: impl Fn(&ListenerPortKey) -> bool,
    ) -> Result<Vec<(ListenerPortKey, ListenerPort)>> {
        let keys = self.listener_ports.keys();
        let keys = keys.filter(|key| key.as_ref().map_or(true, &matches));
        keys.map(|key| {
            let key = key?;
            Ok((key, self.listener_ports.get(&key, 0)?))
        })
        .collect::<Result<_, MapError>>()
        .context("cannot list the ports of the listeners")
    }

    /// Removes the sockets on a port, starting with the slot `first`.
    fn remove_sockets(
        &mut self,
        key: ListenerPortKey,
        port: &ListenerPort,
        first: u16,
    ) -> Result<()> {
        for kind in ListenerAddress::ALL {
            if port.found[kind as usize] == 0 {
                continue;
            }
            for slot in first..MAX_LISTENER_SLOTS {
                let key = ListenerKey::new(key.netns, kind, key.port()).at(slot);
                ignore_missing(self.listeners.remove(&key))?;
            }
        }
        Ok(())
    }

    /// Evicts a pod's stand-ins except the newest `kept`.
    fn evict_stand_ins(&mut self, netns: NetnsCookie, kept: u64) -> Result<()> {
        let (Some(next), Some(usage)) = (
            found(self.next_stand_in.get(&netns, 0))?,
            found(self.stand_in_usage.get(&netns, 0))?,
        ) else {
            return Ok(());
        };
        let allocated = next.wrapping_sub(usage.first).min(MAX_STAND_INS.into());
        for age in kept + 1..=allocated {
            self.evict_stand_in(netns, next.wrapping_sub(age))?;
        }
        Ok(())
    }

    fn evict_stand_in(&mut self, netns: NetnsCookie, number: StandInNumber) -> Result<()> {
        let slot = slot_key(netns, number);
        let Some(entry) = found(self.stand_ins.get(&slot, 0))? else {
            return Ok(());
        };
        if entry.number != number {
            return Ok(());
        }
        let destination = ForwardKey::new(netns, entry.destination);
        if found(self.forward.get(&destination, 0))? == Some(number) {
            ignore_missing(self.forward.remove(&destination))?;
        }
        ignore_missing(self.stand_ins.remove(&slot))
    }
}

/// The number of evicted stand-ins of each pod. Empty if no pod is attached.
pub(crate) fn evicted_stand_ins() -> Result<Vec<(NetnsCookie, u64)>> {
    let Some(maps) = Maps::open_if_complete(&Pins::new().maps())? else {
        return Ok(Vec::new());
    };
    let usage = maps.stand_in_usage.iter();
    usage
        .map(|entry| entry.map(|(netns, usage)| (netns, usage.evicted)))
        .collect::<Result<_, _>>()
        .context("cannot read the number of stand-ins per pod")
}

/// An entry that may not exist.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context("cannot read a map entry"),
    }
}

/// Inserts an entry unless there is one.
fn insert_new<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: K,
    value: V,
) -> Result<(), MapError> {
    match map.insert(key, value, BPF_NOEXIST.into()) {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
        {
            Ok(())
        }
        result => result,
    }
}
