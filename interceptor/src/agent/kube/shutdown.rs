//! Whether SIGTERM means that the agent is being uninstalled.
//!
//! The pod of a `DaemonSet` is ended to be replaced far more often than because the `DaemonSet` is
//! deleted. To uninstall by mistake lets pods start uncaptured; to stay by mistake leaves what
//! `interceptor uninstall --node` removes. So only what the API server has said counts, and an API
//! server that does not answer, or refuses to, says nothing.

/// What the API server says of the agent's `DaemonSet`, with its name.
#[derive(Debug)]
pub enum DaemonSetState {
    /// It is there, and not being deleted.
    Exists(String),
    /// It is being deleted, or there is none (404).
    Gone(String),
    /// No response, or an error other than 404: the request and the error.
    Unknown(String),
}

/// What the watches have reported that started while the agent had its permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The agent's namespace is being deleted, which cannot be undone.
    pub namespace: bool,
    /// The agent's `ServiceAccount` is deleted: no pod of its `DaemonSet` can be created.
    pub service_account: bool,
}

/// What to do with what is installed on the node, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownAction {
    /// Keep it: another agent follows.
    Keep(String),
    /// Keep it: whether another agent follows is not known.
    Unsure(String),
    /// Remove it from the node.
    Uninstall(String),
}

/// Decides.
#[must_use]
pub fn decide(asked: &DaemonSetState, deleted: Deleted) -> ShutdownAction {
    if deleted.namespace {
        return ShutdownAction::Uninstall("the agent's namespace is being deleted".to_owned());
    }
    match asked {
        DaemonSetState::Exists(name) => ShutdownAction::Keep(format!(
            "the DaemonSet {name} exists and is not being deleted"
        )),
        DaemonSetState::Gone(name) => {
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

    /// What is done for each answer about the `DaemonSet`: there, gone, unknown.
    fn decisions(deleted: Deleted) -> [&'static str; 3] {
        let name = || "mesh/interceptor".to_owned();
        let asked = [
            DaemonSetState::Exists(name()),
            DaemonSetState::Gone(name()),
            DaemonSetState::Unknown(name()),
        ];
        asked.map(|asked| match decide(&asked, deleted) {
            ShutdownAction::Keep(_) => "keep",
            ShutdownAction::Unsure(_) => "unsure",
            ShutdownAction::Uninstall(_) => "uninstall",
        })
    }

    #[test]
    fn only_what_the_api_server_has_said_means_uninstall() {
        assert_eq!(decisions(NONE), ["keep", "uninstall", "unsure"]);
        assert_eq!(decisions(NAMESPACE), ["uninstall"; 3]);
        // It may have been created again, as the DaemonSet is there.
        assert_eq!(decisions(ACCOUNT), ["keep", "uninstall", "uninstall"]);
    }

    #[test]
    fn the_reason_names_the_object_and_the_error() {
        let why = "cannot get the DaemonSet mesh/interceptor: 403 Forbidden: no";
        let unsure = decide(&DaemonSetState::Unknown(why.to_owned()), NONE);
        assert_eq!(unsure, ShutdownAction::Unsure(why.to_owned()));
        let there = decide(&DaemonSetState::Exists("mesh/interceptor".to_owned()), NONE);
        let says = matches!(&there, ShutdownAction::Keep(why) if why.contains("mesh/interceptor"));
        assert!(says, "{there:?}");
    }
}
