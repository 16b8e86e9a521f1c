//! Detaching a network namespace: what is taken away. `draining` is what comes before.

pub(crate) mod draining;

use std::path::Path;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{NetnsCookie, Policy};

use super::{policy_entries, registry::policy_of};
use crate::{
    bpf::{
        grace, interface_hooks,
        maps::Maps,
        pins::{self, Pins},
    },
    netns::{
        Netns,
        addresses::remove_passthrough_v6,
        interfaces, localhost_routes, netlink, stand_in_routes, stand_in_rule,
        tproxy::{self, Retired},
    },
};

/// What became of a detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Whether the network namespace was attached.
    pub was_attached: bool,
    /// Whether routes stay for open connections; the next attach or detach takes them away.
    pub keeps_routes: bool,
}

/// Takes away all that an attach makes. The policy goes first: from then on nothing is captured,
/// and the rest is not looked at.
pub(crate) fn undo(pins: &Pins, netns: &Netns) -> Result<Detached> {
    let mut was_attached = false;
    if let Some(mut maps) = Maps::open_if_complete(&pins.maps())? {
        was_attached = policy_of(&maps, netns.cookie())?.is_some();
        remove_policy(&mut maps, netns.cookie())?;
        unwatch_all(netns, &pins.netns(netns.cookie()))?;
        remove_netns(pins, &mut maps, netns.cookie())?;
    }
    let keeps_routes = restore_network(netns)?;
    Ok(Detached {
        was_attached,
        keeps_routes,
    })
}

/// Takes away what is kept inside a network namespace, whichever build has attached it: what is kept
/// outside can be removed without knowing it.
pub(crate) fn clear(pins: &Pins, netns: &Netns) -> Result<()> {
    unwatch_all(netns, &pins.netns(netns.cookie()))?;
    restore_network(netns).map(drop)
}

/// Takes away the addresses, routes, rules and sysctls of ours. Answers whether routes stay.
fn restore_network(netns: &Netns) -> Result<bool> {
    netns.run(|| {
        netlink::run(async |handle| {
            remove_passthrough_v6(&handle).await?;
            let retired = tproxy::retire(&handle, None).await?;
            localhost_routes::retire(&handle, &[]).await?;
            stand_in_rule::remove(&handle).await?;
            let keeps_stand_ins = stand_in_routes::remove(&handle).await?;
            Ok(keeps_stand_ins || retired == Retired::Kept)
        })
    })
}

/// Takes our programs away from the interfaces of a network namespace, whose pins are in `folder`.
fn unwatch_all(netns: &Netns, dir: &Path) -> Result<()> {
    netns.run(|| {
        let interfaces = netlink::run(async |handle| interfaces::list(&handle).await)?;
        interface_hooks::retain(&interfaces, &[], dir)
    })
}

/// Takes away what is kept outside the network namespace, which may be gone.
pub(crate) fn remove_netns(pins: &Pins, maps: &mut Maps, netns: NetnsCookie) -> Result<()> {
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
        policy_entries::remove(maps, id)?;
    }
    Ok(())
}
