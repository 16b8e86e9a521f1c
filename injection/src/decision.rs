//! Whether a pod is injected, and which rule decides: the order of istiod (`injectRequired`).

/// The rule that decides. The webhook, the command and the metrics print the same word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The pod is in the node's network namespace.
    HostNetwork,
    /// The policy is `enabled`, and no other rule applies.
    PolicyEnabled,
}

impl Reason {
    /// The reason as a label of metrics and a value of audit annotations.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HostNetwork => "host_network",
            Self::PolicyEnabled => "policy_enabled",
        }
    }
}
