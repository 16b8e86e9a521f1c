//! Strict mode: guards the interfaces through which a pod's packets leave and enter it. The programs
//! are attached before the policy that makes them refuse anything, and detached after it.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use interceptor_ebpf::{NetnsCookie, Uplink, UplinkKey};

use super::record::{GuardedUplink, Record};
use crate::{
    bpf::{
        interface_hooks::{InterfaceHooks, Side},
        maps::Maps,
        object::Object,
    },
    netns::{
        Netns,
        interfaces::PodInterface,
        uplinks::{self, PodUplink},
    },
    settings::Settings,
};

/// A negative ID of a network namespace is that of the interface.
const OWN_NETNS: i32 = -1;

/// The interfaces of a pod that are guarded, from the node's network namespace where possible.
pub(super) struct Uplinks {
    node: Netns,
    uplinks: Vec<PodUplink>,
}

/// Refuses to move the programs of a pod from the network namespace of the node that it is `recorded`
/// with. In another one, the other ends of the veths are not found, so a command there would move them to
/// the pod.
pub(super) fn check_node(recorded: &Record, settings: &Settings) -> Result<()> {
    let Some(node) = recorded.node_netns_cookie else {
        return Ok(());
    };
    ensure!(
        settings.strict.is_off() || node == uplinks::node_netns()?.cookie(),
        "strict mode of the pod is enforced in another network namespace than that of this command: run \
         it in the node's (`nsenter --target 1 --net`; an agent has it with `hostNetwork: true`), or \
         detach the pod first"
    );
    Ok(())
}

impl Uplinks {
    /// Finds those of the calling thread's network namespace `pod`. `None` without strict mode.
    pub(super) fn find(
        pod: &Netns,
        interfaces: &[PodInterface],
        settings: &Settings,
    ) -> Result<Option<Self>> {
        if settings.strict.is_off() {
            return Ok(None);
        }
        let node = uplinks::node_netns()?;
        let uplinks = uplinks::find(pod.as_fd(), interfaces, settings, &node)?;
        Ok(Some(Self { node, uplinks }))
    }

    /// Adds them to the map by which the programs find the pod.
    pub(super) fn register(&self, pod: &Netns, maps: &mut Maps) -> Result<()> {
        self.entries(pod)
            .try_for_each(|(key, uplink)| maps.uplinks.insert(key, uplink, 0))
            .context("cannot add the pod's interfaces for strict mode: the map icept_uplinks is full or unavailable")
    }

    fn entries(&self, pod: &Netns) -> impl Iterator<Item = (UplinkKey, Uplink)> {
        let (pod, node) = (pod.cookie(), self.node.cookie());
        self.uplinks.iter().map(move |uplink| {
            let own = uplink.interface.index;
            let (netns, interface, netns_id) = match &uplink.peer {
                Some(peer) => (node, peer.interface.index, peer.netns_id),
                None => (pod, own, OWN_NETNS),
            };
            let key = UplinkKey {
                netns,
                interface,
                zero: 0,
            };
            let value = Uplink {
                pod,
                netns_id,
                interface: own,
            };
            (key, value)
        })
    }

    /// Attaches the programs, which pin their links in `dir`.
    pub(super) fn hook(&self, object: &mut Object, dir: &Path) -> Result<()> {
        let at_pod = InterfaceHooks::strict(Side::Pod, dir);
        self.at(Side::Pod)
            .iter()
            .try_for_each(|interface| at_pod.ensure(object, interface))?;
        let at_node = InterfaceHooks::strict(Side::Node, dir);
        let peers = self.at(Side::Node);
        self.node.run(|| {
            peers
                .iter()
                .try_for_each(|interface| at_node.ensure(object, interface))
        })
    }

    /// The node's network namespace, if it has any of the programs.
    pub(super) fn node(&self) -> Option<NetnsCookie> {
        let is_used = self.uplinks.iter().any(|uplink| uplink.peer.is_some());
        is_used.then(|| self.node.cookie())
    }

    /// As the record has them.
    pub(super) fn recorded(&self) -> Vec<GuardedUplink> {
        let guarded = |uplink: &PodUplink| GuardedUplink {
            interface: uplink.interface.name.clone(),
            at: side(uplink),
        };
        self.uplinks.iter().map(guarded).collect()
    }

    /// The interfaces that have the programs on one side.
    fn at(&self, side: Side) -> Vec<PodInterface> {
        let interface = |uplink: &PodUplink| match (side, &uplink.peer) {
            (Side::Node, Some(peer)) => Some(peer.interface.clone()),
            (Side::Pod, None) => Some(uplink.interface.clone()),
            _ => None,
        };
        self.uplinks.iter().filter_map(interface).collect()
    }
}

const fn side(uplink: &PodUplink) -> Side {
    match uplink.peer {
        Some(_) => Side::Node,
        None => Side::Pod,
    }
}

/// Detaches the programs with pins in `dir` from all other interfaces than `kept`. The calling thread is
/// in the network namespace of `pod`.
pub(super) fn retain(
    kept: Option<&Uplinks>,
    pod: &Netns,
    maps: &mut Maps,
    dir: &Path,
) -> Result<()> {
    let [at_pod, at_node] = [Side::Pod, Side::Node].map(|side| InterfaceHooks::strict(side, dir));
    if at_pod.is_empty()? && at_node.is_empty()? {
        return Ok(());
    }
    let keys: Vec<_> = kept
        .iter()
        .flat_map(|kept| kept.entries(pod))
        .map(|(key, _)| key)
        .collect();
    let at = |side| kept.map_or_else(Vec::new, |kept| kept.at(side));
    at_pod.retain(&at(Side::Pod))?;
    let peers = at(Side::Node);
    if !at_node.is_empty()? {
        uplinks::node_netns()?.run(|| at_node.retain(&peers))?;
    }
    maps.retain_uplinks(pod.cookie(), &keys)
}

/// Detaches the programs with pins in `dir` on the node's side.
pub(super) fn unhook_at_node(dir: &Path) -> Result<()> {
    let hooks = InterfaceHooks::strict(Side::Node, dir);
    if hooks.is_empty()? {
        return Ok(());
    }
    uplinks::node_netns()?.run(|| hooks.retain(&[]))
}
