//! Strict mode, which istio-iptables does not have.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    SettingError,
    flags::{REROUTED_INTERFACES, STRICT},
    source::Source,
};

/// What may pass a pod's interfaces only through the proxy, or by an exemption of the settings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Strict {
    /// Nothing: all packets pass, as with iptables
    #[default]
    Off,
    /// TCP
    Tcp,
    /// Every protocol; DNS is exempt
    All,
}

impl Strict {
    /// Whether nothing is refused.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// The value of the flag.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tcp => "tcp",
            Self::All => "all",
        }
    }
}

/// The values of the flag, and of the annotation.
pub(crate) fn parse(value: &str) -> Result<Strict, String> {
    [Strict::Off, Strict::Tcp, Strict::All]
        .into_iter()
        .find(|mode| mode.name() == value)
        .ok_or_else(|| "is not a strict mode: allowed are off, tcp and all".to_owned())
}

pub(super) fn mode(source: &Source<'_>) -> Result<Strict, SettingError> {
    let mode = source.parse(&STRICT, parse)?;
    if mode.is_off() || source.get(&REROUTED_INTERFACES).value.is_empty() {
        return Ok(mode);
    }
    Err(source.get(&STRICT).error(format!(
        "does not support the connections that a pod forwards: remove {}",
        REROUTED_INTERFACES.name()
    )))
}
