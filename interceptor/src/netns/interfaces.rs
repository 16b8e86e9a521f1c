//! The interfaces of a network namespace.

use std::{fs, io};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::Handle;

use super::addresses::LOOPBACK_INDEX;
use crate::settings::{InterfacePattern, Settings, ports::PortSelection};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// The interface's index.
    pub index: u32,
    /// Its name (`eth0`).
    pub name: String,
    /// Whether it is a port of another interface, such as a bridge, which receives its packets.
    pub is_port: bool,
    /// Whether it is up: one that is not receives nothing, such as the tunnels that a kernel module
    /// creates in every network namespace (`tunl0`, `sit0`).
    pub is_up: bool,
    /// Whether packets that it receives for others are forwarded, if there is another interface.
    pub forwards: bool,
}

impl PodInterface {
    /// One that is up, as a fixture.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn up(index: u32, name: &str) -> Self {
        Self {
            index,
            name: name.to_owned(),
            is_port: false,
            is_up: true,
            forwards: false,
        }
    }

    const fn is_loopback(&self) -> bool {
        self.index == LOOPBACK_INDEX
    }

    /// Whether any of `patterns` matches its name.
    #[must_use]
    pub fn is_in(&self, patterns: &[InterfacePattern]) -> bool {
        patterns.iter().any(|pattern| pattern.matches(&self.name))
    }
}

/// All interfaces, in the kernel's order.
pub async fn list(netlink: &Handle) -> Result<Vec<PodInterface>> {
    let messages: Vec<_> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("cannot list the interfaces")?;
    let mut interfaces: Vec<_> = messages.iter().filter_map(interface).collect();
    read_forwarding(&mut interfaces)?;
    Ok(interfaces)
}

pub(super) fn interface(message: &LinkMessage) -> Option<PodInterface> {
    let name = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    let is_port = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Controller(_)));
    Some(PodInterface {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        forwards: false,
        name,
        is_port,
    })
}

/// Sets `forwards` for each interface of the calling thread's network namespace: IPv4 checks the
/// incoming interface (`IN_DEV_FORWARD`), IPv6 the setting for all, and since 6.17 also the interface's.
///
/// Skipped for pods with one interface, as most have: the kernel searches for these files among those of
/// the same name in all network namespaces (`proc_sys_compare`).
fn read_forwarding(interfaces: &mut [PodInterface]) -> Result<()> {
    let is_up = |interface: &&mut PodInterface| interface.is_up && !interface.is_loopback();
    let up: Vec<_> = interfaces.iter_mut().filter(is_up).collect();
    if up.len() < 2 {
        return Ok(());
    }
    let all = is_on("ipv6/conf/all/forwarding")?;
    for interface in up {
        let name = &interface.name;
        interface.forwards = all
            || is_on(&format!("ipv4/conf/{name}/forwarding"))?
            || is_on(&format!("ipv6/conf/{name}/force_forwarding"))?;
    }
    Ok(())
}

/// `false` if the sysctl does not exist: the kernel has no IPv6, or is older, or the interface was
/// deleted.
fn is_on(sysctl: &str) -> Result<bool> {
    match fs::read_to_string(format!("/proc/sys/net/{sysctl}")) {
        Ok(value) => Ok(value.trim() != "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read the sysctl net/{sysctl}")),
    }
}

/// The interfaces that may receive connections which the pod forwards, and to which the rules of
/// `settings` apply: those of `-k`, and, if inbound connections are captured, all interfaces that are
/// up of a pod that forwards from one to another.
#[must_use]
pub fn watched(interfaces: &[PodInterface], settings: &Settings) -> Vec<PodInterface> {
    let candidates = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_port);
    let up = || candidates.clone().filter(|interface| interface.is_up);
    let forwards = up().count() > 1
        && up().any(|interface| interface.forwards)
        && settings.inbound_ports != PortSelection::None;
    candidates
        .filter(|interface| {
            (forwards && interface.is_up) || interface.is_in(&settings.rerouted_interfaces)
        })
        .cloned()
        .collect()
}

/// The interfaces at which strict mode applies: all except those whose traffic the settings exclude.
/// The packets of a bridge pass its ports.
#[must_use]
pub(crate) fn guarded(interfaces: &[PodInterface], settings: &Settings) -> Vec<PodInterface> {
    interfaces
        .iter()
        .filter(|interface| !interface.is_loopback())
        .filter(|interface| !interface.is_in(&settings.excluded_interfaces))
        .cloned()
        .collect()
}
