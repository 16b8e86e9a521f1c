//! Reads which pods are attached, and with which policy and record.

use anyhow::{Context as _, Result};
use aya::maps::MapError;
use interceptor_ebpf::{NetnsCookie, Policy, PolicyId};

use super::record::Record;
use crate::{
    bpf::{hooks, link, maps::Maps, pins::Pins},
    netns::{Netns, NetnsSpec},
    settings::Settings,
};

/// A network namespace that is attached.
#[derive(Clone, Debug)]
pub struct AttachedPod {
    /// The cookie of the network namespace.
    pub netns: NetnsCookie,
    /// What its policy was compiled from.
    pub record: Record,
}

/// The effective policy of a network namespace, and its record.
pub(super) struct Existing {
    pub(super) policy: Policy,
    pub(super) record: Record,
}

impl Existing {
    pub(super) fn read(maps: &Maps, netns: NetnsCookie) -> Result<Option<Self>> {
        let Some(policy) = policy_of(maps, netns)? else {
            return Ok(None);
        };
        let record = Record::load(maps, policy.id)?;
        Ok(Some(Self { policy, record }))
    }

    /// The policy with the routing tables' generation of `new`, if the two differ in nothing else but
    /// their IDs. (Equal settings result in equal entries.)
    pub(super) fn refreshed(&self, new: &Policy) -> Option<Policy> {
        let refreshed = Policy {
            fib: new.fib,
            ..self.policy
        };
        let with_same_id = Policy {
            id: self.policy.id,
            ..*new
        };
        (refreshed == with_same_id).then_some(refreshed)
    }

    /// `Some(true)` if IPv6 is captured with the same settings: it stays captured, as iptables' rules
    /// do, which are written once, whatever addresses the pod has later.
    pub(super) fn captured_ipv6(&self, settings: &Settings) -> Option<bool> {
        (self.record.ipv6 && self.record.settings == *settings).then_some(true)
    }
}

/// The policy of `netns`, if it is attached.
pub(crate) fn policy_of(maps: &Maps, netns: NetnsCookie) -> Result<Option<Policy>> {
    match maps.policies.get(&netns, 0) {
        Ok(policy) => Ok(Some(policy)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).context("cannot read the policies"),
    }
}

/// Opens an attached network namespace: by its recorded path, if that still refers to it, or by a
/// process in it.
pub(super) fn open_attached(
    pins: &Pins,
    maps: &Maps,
    cookie: NetnsCookie,
    policy: PolicyId,
) -> Option<Netns> {
    open_by_record(maps, cookie, policy).or_else(|| open_by_process(pins, cookie))
}

pub(super) fn open_by_record(maps: &Maps, cookie: NetnsCookie, policy: PolicyId) -> Option<Netns> {
    let record = Record::load(maps, policy).ok()?;
    let netns = Netns::open(&NetnsSpec::File(record.netns)).ok()?;
    (netns.cookie() == cookie).then_some(netns)
}

pub(super) fn open_by_process(pins: &Pins, cookie: NetnsCookie) -> Option<Netns> {
    let pin = pins.netns(cookie).join(hooks::LOOKUP.program);
    Netns::find(link::netns_inode(&pin).ok()?, cookie)
}

/// Every attached network namespace with its policy.
pub(crate) fn attached(maps: &Maps) -> Result<Vec<(NetnsCookie, PolicyId)>> {
    maps.policies
        .iter()
        .map(|entry| entry.map(|(cookie, policy)| (cookie, policy.id)))
        .collect::<Result<_, _>>()
        .context("cannot list the policies")
}
