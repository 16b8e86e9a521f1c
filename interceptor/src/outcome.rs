//! The result of connections, in the words of the output: flows, status and metrics use the same.

use interceptor_ebpf::{Counted, Direction as InKernel, Outcome as Kind};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Outbound,
    Inbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPER")]
pub(crate) enum Verdict {
    /// Goes to the proxy.
    Captured,
    /// Goes to its destination.
    Passed,
    /// Fails.
    Refused,
}

impl Direction {
    /// As in JSON and in the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Verdict {
    /// As in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Captured => "CAPTURED",
            Self::Passed => "PASSED",
            Self::Refused => "REFUSED",
        }
    }
}

/// The result of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) direction: Direction,
    pub(crate) verdict: Verdict,
    /// The label of the rule that decided, as in the metrics.
    pub(crate) reason: &'static str,
    /// The same in words.
    pub(crate) explanation: &'static str,
}

impl From<Counted> for Outcome {
    fn from(counted: Counted) -> Self {
        let (verdict, reason, explanation) = match counted.outcome {
            Kind::Captured(reason) => (Verdict::Captured, reason.name(), reason.words()),
            Kind::Passed(reason) => (Verdict::Passed, reason.name(), reason.words()),
            Kind::Refused(why) => (Verdict::Refused, why.name(), why.words()),
        };
        Self {
            direction: match counted.direction {
                InKernel::Outbound => Direction::Outbound,
                InKernel::Inbound => Direction::Inbound,
            },
            verdict,
            reason,
            explanation,
        }
    }
}

/// How many connections of a pod had one result since the pod was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionCount {
    pub(crate) direction: Direction,
    pub(crate) verdict: Verdict,
    /// The label of the rule that decided, as in the metrics.
    pub(crate) reason: String,
    pub(crate) count: u64,
}

impl ConnectionCount {
    pub(crate) fn new(counted: Counted, count: u64) -> Self {
        let outcome = Outcome::from(counted);
        Self {
            direction: outcome.direction,
            verdict: outcome.verdict,
            reason: outcome.reason.to_owned(),
            count,
        }
    }
}
