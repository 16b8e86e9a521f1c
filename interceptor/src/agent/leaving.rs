//! Whether SIGTERM means that the node is to be left as it was.
//!
//! A pod of a `DaemonSet` is ended to be replaced, far more often than because the set goes.
//! To uninstall by mistake lets pods start uncaptured; to stay by mistake leaves what `interceptor
//! uninstall --node` removes. So only a sure yes is a yes.

use k8s_openapi::api::apps::v1::DaemonSet;

/// What the API says of our `DaemonSet`.
#[derive(Debug)]
pub enum Asked<'a> {
    /// It is there, in this state.
    Found(&'a DaemonSet),
    /// There is none: 404, and nothing else.
    Gone,
    /// No answer, none in time, or an error.
    Unknown,
}

/// What to do with what is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Keep it: another agent follows, or nobody knows.
    Keep,
    /// Take it off the node.
    Uninstall,
}

/// Decides.
#[must_use]
pub fn decide(asked: &Asked<'_>) -> Leaving {
    match asked {
        Asked::Gone => Leaving::Uninstall,
        Asked::Found(set) if set.metadata.deletion_timestamp.is_some() => Leaving::Uninstall,
        Asked::Found(_) | Asked::Unknown => Leaving::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(deletion: &str) -> DaemonSet {
        let text = format!(r#"{{"metadata":{{"name":"interceptor-agent"{deletion}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_a_daemon_set_that_is_gone_or_going_means_uninstall() {
        let there = daemon_set("");
        let going = daemon_set(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#);
        assert_eq!(decide(&Asked::Gone), Leaving::Uninstall);
        assert_eq!(decide(&Asked::Found(&going)), Leaving::Uninstall);
        assert_eq!(decide(&Asked::Found(&there)), Leaving::Keep);
    }

    #[test]
    fn what_is_not_known_keeps_what_is_installed() {
        assert_eq!(decide(&Asked::Unknown), Leaving::Keep);
    }
}
