//! Whether SIGTERM means that the agent is being uninstalled.
//!
//! A pod of a `DaemonSet` is terminated far more often to be replaced than because the `DaemonSet` is
//! deleted. If the agent uninstalls by mistake, pods start uncaptured; if it stays by mistake,
//! `interceptor uninstall --node` removes what is left. So the agent uninstalls only if the API server
//! confirms a deletion. No response, or an error, confirms nothing.

/// The state of the agent's `DaemonSet` at the API server, with its name.
#[derive(Debug)]
pub enum DaemonSetState {
    /// It exists, and is not being deleted.
    Exists(String),
    /// It is being deleted, or does not exist (404).
    Deleted(String),
    /// No response, or an error other than 404: the request and the error.
    Unknown(String),
}

/// Deletions that the agent's watches reported. They started while the agent had its permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The agent's namespace is being deleted, which cannot be undone.
    pub namespace: bool,
    /// The agent's `ServiceAccount` is deleted: no pod of its `DaemonSet` can be created.
    pub service_account: bool,
}

/// What to do with the plugin on the node, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownAction {
    /// Keep it: another agent will start.
    Keep(String),
    /// Keep it: whether another agent will start is unknown.
    Unsure(String),
    /// Remove it from the node.
    Uninstall(String),
}

/// Decides whether to uninstall.
#[must_use]
pub fn decide(daemon_set: &DaemonSetState, deleted: Deleted) -> ShutdownAction {
    if deleted.namespace {
        return ShutdownAction::Uninstall("the agent's namespace is being deleted".to_owned());
    }
    match daemon_set {
        DaemonSetState::Exists(name) => ShutdownAction::Keep(format!(
            "the DaemonSet {name} exists and is not being deleted"
        )),
        DaemonSetState::Deleted(name) => {
            ShutdownAction::Uninstall(format!("the DaemonSet {name} is deleted"))
        }
        DaemonSetState::Unknown(why) if deleted.service_account => {
            ShutdownAction::Uninstall(format!("the agent's ServiceAccount is deleted, and {why}"))
        }
        DaemonSetState::Unknown(why) => ShutdownAction::Unsure(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Deleted = Deleted {
        namespace: false,
        service_account: false,
    };
    const NAMESPACE: Deleted = Deleted {
        namespace: true,
        ..NONE
    };
    const ACCOUNT: Deleted = Deleted {
        service_account: true,
        ..NONE
    };

    /// The decision for each state of the `DaemonSet`: exists, deleted, unknown.
    fn decisions(deleted: Deleted) -> [&'static str; 3] {
        let name = || "mesh/interceptor".to_owned();
        let states = [
            DaemonSetState::Exists(name()),
            DaemonSetState::Deleted(name()),
            DaemonSetState::Unknown(name()),
        ];
        states.map(|state| match decide(&state, deleted) {
            ShutdownAction::Keep(_) => "keep",
            ShutdownAction::Unsure(_) => "unsure",
            ShutdownAction::Uninstall(_) => "uninstall",
        })
    }

    #[test]
    fn only_a_confirmed_deletion_uninstalls() {
        assert_eq!(decisions(NONE), ["keep", "uninstall", "unsure"]);
        assert_eq!(decisions(NAMESPACE), ["uninstall"; 3]);
        // The ServiceAccount may have been created again, as the DaemonSet exists.
        assert_eq!(decisions(ACCOUNT), ["keep", "uninstall", "uninstall"]);
    }

    #[test]
    fn the_reason_names_the_object_and_the_error() {
        let why = "cannot get the DaemonSet mesh/interceptor: 403 Forbidden: no";
        let unsure = decide(&DaemonSetState::Unknown(why.to_owned()), NONE);
        assert_eq!(unsure, ShutdownAction::Unsure(why.to_owned()));
        let keep = decide(&DaemonSetState::Exists("mesh/interceptor".to_owned()), NONE);
        let says = matches!(&keep, ShutdownAction::Keep(why) if why.contains("mesh/interceptor"));
        assert!(says, "{keep:?}");
    }
}
