//! A case: who does what, and the expected outcome behind each defence.

use std::fmt;

use anyhow::Result;
use interceptor_testkit::world::Setup;

use super::{defence::Defence, outcome::Outcome, scene::Scene};

/// Who makes the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// An app without capabilities.
    App,
    /// One with `CAP_NET_RAW`.
    AppNetRaw,
    /// One with `CAP_NET_ADMIN` and `CAP_NET_RAW`.
    AppNetAdmin,
    /// One with `CAP_BPF` and `CAP_NET_ADMIN` that can open the pod's cgroup.
    AppBpf,
    /// A host on the pod's link.
    Neighbour,
    /// Another pod of the node, together with the app.
    OtherPod,
    /// Root on the node, together with the app.
    Host,
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::App => "app",
            Self::AppNetRaw => "app with NET_RAW",
            Self::AppNetAdmin => "app with NET_ADMIN",
            Self::AppBpf => "app with BPF and NET_ADMIN",
            Self::Neighbour => "neighbour",
            Self::OtherPod => "app and another pod",
            Self::Host => "app and root of the node",
        })
    }
}

/// Makes the attempt.
pub(crate) type Act = fn(&Scene) -> Result<Outcome>;

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    pub(crate) act: Act,
    iptables: Outcome,
    interceptor: Outcome,
    strict: Option<Outcome>,
    /// The row of `docs/differences.md` that names this case, in which Interceptor is weaker.
    pub(crate) known: Option<&'static str>,
    /// Whether it leaves the world in a state that other cases cannot use.
    pub(crate) changes_world: bool,
}

impl Case {
    pub(crate) fn expected(&self, defence: Defence) -> &Outcome {
        match defence {
            Defence::Iptables => &self.iptables,
            Defence::Interceptor => &self.interceptor,
            Defence::Strict => self.strict.as_ref().unwrap_or(&self.interceptor),
        }
    }

    /// The outcome in strict mode, which differs.
    pub(crate) fn strict(mut self, outcome: Outcome) -> Self {
        self.strict = Some(outcome);
        self
    }

    /// Interceptor is weaker, as `docs/differences.md` says in a row that starts like this.
    pub(crate) const fn known(mut self, row: &'static str) -> Self {
        self.known = Some(row);
        self
    }

    /// No other case can use the world afterwards.
    pub(crate) const fn changes_world(mut self) -> Self {
        self.changes_world = true;
        self
    }
}

/// A case with its expected outcomes: behind iptables, and behind Interceptor in either mode.
pub(crate) fn case(
    who: Who,
    name: &'static str,
    act: Act,
    [iptables, interceptor]: [Outcome; 2],
) -> Case {
    Case {
        name,
        who,
        act,
        iptables,
        interceptor,
        strict: None,
        known: None,
        changes_world: false,
    }
}

/// Cases that share their worlds.
pub(crate) struct Group {
    /// The heading in `SECURITY.md`.
    pub(crate) title: &'static str,
    pub(crate) setup: Setup,
    pub(crate) cases: Vec<Case>,
}
