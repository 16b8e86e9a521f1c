//! Kubelet's names of cgroups, by its driver.

/// Kubelet's cgroup driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// systemd's slices and scopes.
    Systemd,
    /// systemd's, one level down, as in kind: the node itself is a container.
    NestedSystemd,
    /// Directories.
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

    /// The cgroup of the pod with this UID, in the class "burstable", as for pods with a sidecar.
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

    /// The cgroup of a container or sandbox below the pod's, with containerd's name.
    #[must_use]
    pub fn container(self, id: &str) -> String {
        match self {
            Self::Systemd | Self::NestedSystemd => format!("cri-containerd-{id}.scope"),
            Self::Cgroupfs => id.to_owned(),
        }
    }
}
