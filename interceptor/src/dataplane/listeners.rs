//! The listeners of a pod's proxy.

use anyhow::Result;
use interceptor_ebpf::{DNS_CAPTURE_PORT, NetnsCookie};

use super::shared::SharedState;
use crate::{
    bpf::{listeners, maps::Maps},
    netns::{Netns, listening},
    settings::{DnsCapture, Settings},
};

/// Notes the listeners that are open already, in the calling thread's network namespace. Those of a
/// port are known if one is, unless a hook was missing when another one opened: then `looks_again`.
pub(crate) fn note_open(
    netns: NetnsCookie,
    settings: &Settings,
    shared: &mut SharedState,
    looks_again: bool,
) -> Result<()> {
    let ports = proxy_ports(settings);
    // Most pods are attached before anything listens.
    let Ok(mut listening) = listening::tcp_ports() else {
        return listeners::note_open(&mut shared.object);
    };
    listening.retain(|port| ports.contains(port));
    let is_unknown = |port: &u16| !shared.maps.has_listeners(netns, *port);
    if listening.is_empty() || !(looks_again || listening.iter().any(is_unknown)) {
        return Ok(());
    }
    listeners::note_open(&mut shared.object)
}

/// Notes who listens on the proxy's ports, from now on and already.
pub(crate) fn note_all(netns: &Netns, settings: &Settings, shared: &mut SharedState) -> Result<()> {
    note_ports(netns.cookie(), settings, &mut shared.maps)?;
    netns.enter(|| listeners::note_open(&mut shared.object))
}

pub(crate) fn note_ports(netns: NetnsCookie, settings: &Settings, maps: &mut Maps) -> Result<()> {
    let mut ports = proxy_ports(settings).into_iter();
    ports.try_for_each(|port| maps.note_port(netns, port))
}

/// The ports whose listeners are the proxy's.
pub(crate) fn proxy_ports(settings: &Settings) -> Vec<u16> {
    let mut ports = vec![settings.outbound_port, settings.inbound_port];
    if settings.dns != DnsCapture::Off {
        ports.push(DNS_CAPTURE_PORT);
    }
    ports
}
