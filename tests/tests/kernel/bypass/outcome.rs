//! The outcome of an attempt.

use std::{borrow::Cow, fmt};

/// What an attempt achieves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The kernel does not have what the attempt needs.
    NotPossible(Cow<'static, str>),
    /// The attempt fails.
    Refused(Cow<'static, str>),
    /// It has no response, and nothing reaches the far end.
    NothingArrives,
    /// The proxy receives the connection.
    Proxy,
    /// A process receives the connection that it would receive without interception, in the pod
    /// itself.
    Inside,
    /// Packets reach the far end, but no connection.
    Leaves(Cow<'static, str>),
    /// The far end or, from outside, the app is reached past the proxy.
    PastTheProxy(Cow<'static, str>),
}

/// The errors of calls that the kernel does not have.
const MISSING: [&str; 8] = [
    "EAFNOSUPPORT",
    "ENOENT",
    "ENODEV",
    "ENOPROTOOPT",
    "ENOSYS",
    "EOPNOTSUPP",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
];
/// The errors of calls that got no response in time.
const TIMEOUTS: [&str; 3] = ["EAGAIN", "EINPROGRESS", "ETIMEDOUT"];

/// A refusal with this errno.
pub(crate) const fn refused(errno: &'static str) -> Outcome {
    Outcome::Refused(Cow::Borrowed(errno))
}

/// Packets of this kind leave.
pub(crate) const fn leaves(what: &'static str) -> Outcome {
    Outcome::Leaves(Cow::Borrowed(what))
}

/// This gets past the proxy.
pub(crate) const fn past(what: &'static str) -> Outcome {
    Outcome::PastTheProxy(Cow::Borrowed(what))
}

/// The kernel does not have it.
pub(crate) const fn not_possible(errno: &'static str) -> Outcome {
    Outcome::NotPossible(Cow::Borrowed(errno))
}

impl Outcome {
    /// The outcome of a call that fails.
    pub(crate) fn of_errno(errno: String) -> Self {
        if TIMEOUTS.contains(&errno.as_str()) {
            Self::NothingArrives
        } else if MISSING.contains(&errno.as_str()) {
            Self::NotPossible(errno.into())
        } else {
            Self::Refused(errno.into())
        }
    }

    /// Whether more gets past the proxy than with `other`.
    pub(crate) const fn is_weaker_than(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::NotPossible(_)
            | Self::Refused(_)
            | Self::NothingArrives
            | Self::Proxy
            | Self::Inside => 0,
            Self::Leaves(_) => 1,
            Self::PastTheProxy(_) => 2,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPossible(errno) => write!(formatter, "not possible here ({errno})"),
            Self::Refused(errno) => write!(formatter, "refused ({errno})"),
            Self::NothingArrives => formatter.write_str("nothing arrives"),
            Self::Proxy => formatter.write_str("proxy"),
            Self::Inside => formatter.write_str("stays in the pod"),
            Self::Leaves(what) => write!(formatter, "**{what} leaves**"),
            Self::PastTheProxy(what) => write!(formatter, "**past the proxy: {what}**"),
        }
    }
}
