//! What intercepts the pod's connections.

use std::fmt;

use interceptor_testkit::{
    settings::Strict,
    world::{Mechanism, Setup},
};

/// What intercepts the pod's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defence {
    Iptables,
    Interceptor,
    /// Interceptor in its strictest mode.
    Strict,
}

impl Defence {
    pub(crate) const ALL: [Self; 3] = [Self::Iptables, Self::Interceptor, Self::Strict];

    pub(crate) const fn mechanism(self) -> Mechanism {
        match self {
            Self::Iptables => Mechanism::Iptables,
            Self::Interceptor | Self::Strict => Mechanism::Interceptor,
        }
    }

    /// The group's setup with the settings of this defence.
    pub(crate) fn with(self, setup: &Setup) -> Setup {
        let mut setup = setup.clone();
        if self == Self::Strict {
            setup.settings.strict = Strict::All;
        }
        setup
    }
}

/// The heading of the defence's column.
impl fmt::Display for Defence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Iptables => "iptables",
            Self::Interceptor => "Interceptor",
            Self::Strict => "Interceptor strict",
        })
    }
}
