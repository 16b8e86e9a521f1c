//! Which pods are attached, and with what: the read side.

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
    /// The kernel's name for the network namespace.
    pub netns: NetnsCookie,
    /// What it is attached with.
    pub record: Record,
}

/// What a network namespace is attached with already.
pub(crate) struct Existing {
    pub(crate) policy: Policy,
    pub(crate) record: Record,
}

impl Existing {
    pub(crate) fn read(maps: &Maps, netns: NetnsCookie) -> Result<Option<Self>> {
        let Some(policy) = policy_of(maps, netns)? else {
            return Ok(None);
        };
        let record = Record::load(maps, policy.id)?;
        Ok(Some(Self { policy, record }))
    }

    /// The policy in force, if it differs from `now` in nothing but its name and the generation of
    /// the routing tables, which it takes over. (Equal settings make equal lists.)
    pub(crate) fn refreshed(&self, now: &Policy) -> Option<Policy> {
        let refreshed = Policy {
            fib: now.fib,
            ..self.policy
        };
        let named_alike = Policy {
            id: self.policy.id,
            ..*now
        };
        (refreshed == named_alike).then_some(refreshed)
    }

    /// Whether IPv6 is captured under the same settings, if it is: iptables' rules are written once,
    /// and stay whatever addresses the pod gets and loses.
    pub(crate) fn captured_ipv6(&self, settings: &Settings) -> Option<bool> {
        (self.record.ipv6 && self.record.settings == *settings).then_some(true)
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

/// Opens an attached network namespace: by the path that it had, if that still leads there, else by
/// way of a process that is in it.
pub(crate) fn open_attached(
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
pub fn attached(maps: &Maps) -> Result<Vec<(NetnsCookie, PolicyId)>> {
    maps.policies
        .iter()
        .map(|entry| entry.map(|(cookie, policy)| (cookie, policy.id)))
        .collect::<Result<_, _>>()
        .context("cannot list the policies")
}
