//! Inserts and removes the map entries of a policy: its ports, prefixes, groups, interfaces and routes.
//!
//! The cost of a removal depends on the entries of one pod, not of all pods: the keys are compiled from
//! the settings again, or are consecutive in the map.

use anyhow::{Context as _, Result};
use aya::maps::MapError;
use interceptor_ebpf::{Address, PolicyId};

use super::record::Record;
use crate::{
    bpf::maps::{Maps, prefix_key},
    netns::route_limits::{Cause, Limit},
    policy::{self, CompiledPolicy},
};

/// Inserts the entries of a policy, without its routes.
pub(super) fn insert(maps: &mut Maps, compiled: &CompiledPolicy) -> Result<()> {
    let full = "the policy does not fit into the maps";
    for (key, page) in &compiled.ports {
        maps.ports.insert(key, page, 0).context(full)?;
    }
    for (key, length, flags) in &compiled.prefixes {
        let key = prefix_key(*key, *length);
        maps.prefixes.insert(&key, flags, 0).context(full)?;
    }
    for key in &compiled.groups {
        maps.groups.insert(key, 1, 0).context(full)?;
    }
    for (key, interface) in &compiled.interfaces {
        maps.interfaces.insert(key, interface, 0).context(full)?;
    }
    Ok(())
}

/// Inserts the routes of a policy. If the map is full, the policy gets none, and the pod is captured
/// nevertheless: returns the resulting limits.
pub(super) fn insert_routes(maps: &mut Maps, compiled: &CompiledPolicy) -> Result<Vec<Limit>> {
    for (done, (key, length, route)) in compiled.routes.iter().enumerate() {
        match maps.routes.insert(&prefix_key(*key, *length), route, 0) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                maps.remove_routes(&compiled.routes[..done])?;
                let limit = |ipv6| Limit {
                    ipv6,
                    cause: Cause::NoRoom,
                };
                return Ok(vec![limit(false), limit(true)]);
            }
            Err(error) => return Err(error).context("cannot insert the pod's routes into the map"),
        }
    }
    Ok(Vec::new())
}

fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::ENOSPC))
}

/// Removes the entries and the record of a policy that no program can be reading.
pub(super) fn remove(maps: &mut Maps, policy: PolicyId) -> Result<()> {
    let Ok(record) = Record::load(maps, policy) else {
        return maps.remove_policy_entries(|other| other == policy);
    };
    maps.remove_ports(&policy::port_keys(policy, &record.settings))?;
    maps.remove_prefixes(&policy::prefix_keys(policy, &record.settings))?;
    maps.remove_groups_and_interfaces(policy)?;
    remove_routes(maps, policy)?;
    // Last: the record identifies the other entries.
    Record::remove(maps, policy)
}

/// Removes the routes of a policy, one family after the other.
fn remove_routes(maps: &mut Maps, policy: PolicyId) -> Result<()> {
    for first in [Address::UNSPECIFIED_V6, Address::UNSPECIFIED_V4] {
        maps.remove_routes_from(policy, first)?;
    }
    Ok(())
}
