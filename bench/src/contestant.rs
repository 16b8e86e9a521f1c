//! The compared mechanisms.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How connections reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Contestant {
    /// Without interception: the app dials the proxy's port itself. The limit.
    Direct,
    /// Istio's rules, applied by `iptables-restore`.
    Iptables,
    /// Interceptor.
    Interceptor,
}

impl Contestant {
    /// All, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Direct, Self::Iptables, Self::Interceptor];
    /// Those that intercept.
    pub const INTERCEPTING: [Self; 2] = [Self::Iptables, Self::Interceptor];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Iptables => "iptables-nft",
            Self::Interceptor => "interceptor",
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
