//! Registers the listeners of a pod's proxy.

use anyhow::Result;
use interceptor_ebpf::{DNS_CAPTURE_PORT, NetnsCookie};

use super::shared::SharedState;
use crate::{
    bpf::{listeners, maps::Maps},
    netns::{Netns, listening},
    settings::{DnsCapture, Settings},
};

/// Registers the listeners that are open already, in the calling thread's network namespace. If one
/// of a port is registered, all of them are, unless a hook was missing when another one opened: then
/// `rescan` is required.
pub(super) fn register_open(
    netns: NetnsCookie,
    settings: &Settings,
    shared: &mut SharedState,
    rescan: bool,
) -> Result<()> {
    let ports = proxy_ports(settings);
    // Most pods are attached before any process listens.
    let Ok(mut listening) = listening::tcp_ports() else {
        return listeners::register_open(&mut shared.object);
    };
    listening.retain(|port| ports.contains(port));
    let is_unknown = |port: &u16| !shared.maps.has_listeners(netns, *port);
    if listening.is_empty() || !(rescan || listening.iter().any(is_unknown)) {
        return Ok(());
    }
    listeners::register_open(&mut shared.object)
}

/// Registers the open listeners on the proxy's ports, and has the programs register new ones.
pub(super) fn register_all(
    netns: &Netns,
    settings: &Settings,
    shared: &mut SharedState,
) -> Result<()> {
    register_ports(netns.cookie(), settings, &mut shared.maps)?;
    netns.enter(|| listeners::register_open(&mut shared.object))
}

pub(super) fn register_ports(
    netns: NetnsCookie,
    settings: &Settings,
    maps: &mut Maps,
) -> Result<()> {
    let mut ports = proxy_ports(settings).into_iter();
    ports.try_for_each(|port| maps.register_port(netns, port))
}

/// The ports on which the proxy listens.
pub(super) fn proxy_ports(settings: &Settings) -> Vec<u16> {
    let mut ports = vec![settings.outbound_port, settings.inbound_port];
    if settings.dns != DnsCapture::Off {
        ports.push(DNS_CAPTURE_PORT);
    }
    ports
}
