//! Completes changes: removes what is no longer needed.

use std::collections::HashSet;

use anyhow::Result;

use super::{
    detach::{self, draining::is_running},
    record::Record,
    registry::{attached, policy_of},
    shared::SharedState,
};
use crate::bpf::{
    hooks::{self, CGROUP_HOOKS},
    link,
    maps::Maps,
    pins::{self, Pins},
};

/// Removes the state of deleted network namespaces, links to cgroups that no pod is attached to,
/// everything if no pod is left, and if `unfinished` the entries of policies that were not committed
/// or not completely removed.
pub(super) fn sweep(pins: &Pins, shared: &mut Option<SharedState>, unfinished: bool) -> Result<()> {
    let Some(mut maps) = Maps::open_if_complete(&pins.maps())? else {
        return remove_everything(pins, shared);
    };
    remove_deleted(pins, &mut maps)?;
    let policies = attached(&maps)?;
    if policies.is_empty() {
        return remove_everything(pins, shared);
    }
    maps.divide_among(policies.len())?;
    if unfinished {
        let effective: HashSet<_> = policies.iter().map(|(_, policy)| *policy).collect();
        maps.remove_policy_entries(|policy| !effective.contains(&policy))?;
    }
    let records = policies
        .iter()
        .map(|(_, policy)| Record::load(&maps, *policy))
        .collect::<Result<Vec<_>>>()?;
    remove_unused_links(pins, &records)?;
    if let Some(shared) = shared {
        shared.clear_links();
    }
    pins.finish_change()
}

fn remove_everything(pins: &Pins, shared: &mut Option<SharedState>) -> Result<()> {
    *shared = None;
    pins.remove_all()
}

fn remove_deleted(pins: &Pins, maps: &mut Maps) -> Result<()> {
    for cookie in pins.netns_cookies()? {
        let pin = pins.netns(cookie).join(hooks::LOOKUP.program);
        // A draining pod whose detach was killed is detached now.
        let attached = match policy_of(maps, cookie)? {
            Some(policy) => !policy.is_draining() || is_running(pins, cookie)?,
            None => false,
        };
        if !attached || !link::is_alive(hooks::LOOKUP, &pin)? {
            detach::remove_netns(pins, maps, cookie)?;
        }
    }
    Ok(())
}

fn remove_unused_links(pins: &Pins, records: &[Record]) -> Result<()> {
    let mut used = HashSet::new();
    for record in records {
        for (cgroup, hooks) in record.attach_points().with_hooks() {
            used.extend(hooks.iter().map(|hook| (cgroup.id, hook.program)));
        }
    }
    for id in pins.cgroup_ids()? {
        let dir = pins.cgroup(id);
        if !used.iter().any(|(cgroup, _)| *cgroup == id) {
            pins::remove_tree(&dir)?;
            continue;
        }
        for hook in CGROUP_HOOKS {
            if !used.contains(&(id, hook.program)) {
                link::remove_pin(&dir.join(hook.program))?;
            }
        }
    }
    Ok(())
}
