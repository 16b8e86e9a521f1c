//! The second half of a detach: removes what an attach has added. [`draining`] is the first half.

pub(super) mod draining;

use std::path::Path;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{NetnsCookie, Policy};

use super::{policy_entries, registry::policy_of, uplinks};
use crate::{
    bpf::{
        grace,
        interface_hooks::{InterfaceHooks, Side},
        maps::Maps,
        pins::{self, Pins},
    },
    netns::{
        Netns,
        addresses::remove_passthrough_v6,
        localhost_routes, netlink, stand_in_routes, stand_in_rule,
        tproxy::{self, Retired},
    },
};

/// The result of a detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Whether the network namespace was attached.
    pub was_attached: bool,
    /// Whether routes are kept for open connections; the next attach or detach removes them.
    pub keeps_routes: bool,
}

/// Removes everything that an attach has added. The policy is removed first: from then on nothing is
/// captured, and the rest has no effect.
pub(super) fn undo(pins: &Pins, netns: &Netns) -> Result<Detached> {
    let mut was_attached = false;
    if let Some(mut maps) = Maps::open_if_complete(&pins.maps())? {
        was_attached = policy_of(&maps, netns.cookie())?.is_some();
        remove_policy(&mut maps, netns.cookie())?;
        unhook_interfaces(netns, &pins.netns(netns.cookie()))?;
        remove_netns(pins, &mut maps, netns.cookie())?;
    }
    let keeps_routes = restore_network(netns)?;
    Ok(Detached {
        was_attached,
        keeps_routes,
    })
}

/// Removes what any build has added inside a network namespace. What exists outside of it can be
/// removed without opening it.
pub(super) fn clear(pins: &Pins, netns: &Netns) -> Result<()> {
    unhook_interfaces(netns, &pins.netns(netns.cookie()))?;
    restore_network(netns).map(drop)
}

/// Removes our addresses, routes and rules and resets our sysctls. Returns whether routes are kept.
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

/// Detaches our programs from the interfaces of a network namespace with the pins in `dir`.
fn unhook_interfaces(netns: &Netns, dir: &Path) -> Result<()> {
    uplinks::unhook_at_node(dir)?;
    netns.run(|| {
        InterfaceHooks::on(Side::Pod, dir)
            .iter()
            .try_for_each(|hooks| hooks.retain(&[]))
    })
}

/// Removes what exists outside of the network namespace, which may be deleted already.
pub(super) fn remove_netns(pins: &Pins, maps: &mut Maps, netns: NetnsCookie) -> Result<()> {
    remove_policy(maps, netns)?;
    pins::remove_tree(&pins.netns(netns))?;
    maps.remove_netns_state(netns)
}

/// From then on nothing is captured.
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
