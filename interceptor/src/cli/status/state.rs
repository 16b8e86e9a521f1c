//! The state of a captured pod in one or two words.

use std::fmt;

use super::settings::{captures_inbound, captures_outbound};
use crate::status::PodStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The proxy receives what is captured.
    Captured,
    /// Captured connections are refused: the proxy does not listen on a port.
    NoListener,
    /// The pod's network is not that of the last attach.
    Outdated,
    /// There is a warning.
    Warning,
}

impl State {
    /// The worst that applies.
    pub(super) fn of(pod: &PodStatus) -> Self {
        if !pod.warnings.is_empty() {
            Self::Warning
        } else if !ports_without_listener(pod).is_empty() {
            Self::NoListener
        } else if pod.network_changed {
            Self::Outdated
        } else {
            Self::Captured
        }
    }
}

/// The proxy's ports to which connections are captured, and on which nothing listens.
pub(super) fn ports_without_listener(pod: &PodStatus) -> Vec<u16> {
    let settings = &pod.attached.settings;
    let outbound = pod.outbound_listeners == 0 && captures_outbound(settings);
    let inbound = pod.inbound_listeners == 0 && captures_inbound(settings);
    let outbound = outbound.then_some(settings.outbound_port);
    let inbound = inbound.then_some(settings.inbound_port);
    outbound.into_iter().chain(inbound).collect()
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Captured => "captured",
            Self::NoListener => "no listener",
            Self::Outdated => "outdated",
            Self::Warning => "warning",
        })
    }
}
