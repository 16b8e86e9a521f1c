//! What kubelet calls cgroups, by its driver.

/// How kubelet makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// systemd's slices and scopes.
    Systemd,
    /// systemd's, one level down, as in kind: the node is a container itself.
    NestedSystemd,
    /// Folders.
    Cgroupfs,
}

impl Driver {
    /// The cgroup of all pods.
    #[must_use]
    pub const fn kubepods(self) -> &'static str {
        match self {
            Self::Systemd => "kubepods.slice",
            Self::NestedSystemd => "kubelet.slice/kubelet-kubepods.slice",
            Self::Cgroupfs => "kubepods",
        }
    }

    /// The cgroup of the pod with this UID, which is of the class "burstable", as pods with a
    /// sidecar are.
    #[must_use]
    pub fn pod(self, uid: &str) -> String {
        let slice = |prefix: &str| {
            let uid = uid.replace('-', "_");
            format!("{prefix}-burstable.slice/{prefix}-burstable-pod{uid}.slice")
        };
        let below = match self {
            Self::Systemd => slice("kubepods"),
            Self::NestedSystemd => slice("kubelet-kubepods"),
            Self::Cgroupfs => format!("burstable/pod{uid}"),
        };
        format!("{}/{below}", self.kubepods())
    }

    /// The cgroup of a container or sandbox below the pod's, as containerd calls it.
    #[must_use]
    pub fn container(self, id: &str) -> String {
        match self {
            Self::Systemd | Self::NestedSystemd => format!("cri-containerd-{id}.scope"),
            Self::Cgroupfs => id.to_owned(),
        }
    }
}
