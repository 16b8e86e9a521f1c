//! The cgroups that a pod's programs are attached to.

use std::path::PathBuf;

use aya_obj::generated::bpf_attach_type::{
    BPF_CGROUP_GETSOCKOPT, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT,
    BPF_CGROUP_SETSOCKOPT, BPF_CGROUP_SOCK_OPS, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG,
};
use serde::{Deserialize, Serialize};

use crate::{
    bpf::hooks::{CGROUP_HOOKS, Hook},
    cgroup::Cgroup,
};

/// The cgroups that a pod is attached to.
///
/// On a node, `root` is the root of the host's hierarchy: every socket of the pod's network namespace
/// is below it, whichever process created it. `kubepods` is the kubepods cgroup: programs of a cgroup
/// run before those of the cgroups above it (`compute_effective_progs`), so programs there see the
/// destination that the app has dialed, before a load balancer at the root (Cilium's, Calico's)
/// rewrites it. The programs at the root leave a stand-in as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoints<T = Cgroup> {
    /// Every socket of the pod is below it.
    pub root: T,
    /// Where destinations are evaluated first.
    pub kubepods: Option<T>,
    /// The pod's own, which contains all of its containers: for the hooks that only its sockets
    /// need, so that no other socket pays for them.
    pub pod: Option<T>,
}

/// A cgroup in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupName {
    /// Its path, even after it was deleted.
    pub path: PathBuf,
    /// The kernel's ID of it, not reused until reboot.
    pub id: u64,
}

impl<T> AttachPoints<T> {
    /// One cgroup for everything.
    #[must_use]
    pub const fn single(root: T) -> Self {
        Self {
            root,
            kubepods: None,
            pod: None,
        }
    }

    /// Each cgroup with its hooks. The pod's own comes first, the one where connections are captured
    /// last.
    pub fn with_hooks(&self) -> impl Iterator<Item = (&T, Vec<Hook>)> {
        let at_root = |hook: &Hook| self.pod.is_none() || !is_for_pod(*hook);
        let pod = self.pod.as_ref().map(|pod| (pod, hooks(is_for_pod)));
        let root = (&self.root, hooks(|hook| at_root(&hook)));
        let kubepods = self
            .kubepods
            .as_ref()
            .map(|kubepods| (kubepods, hooks(is_destination)));
        pod.into_iter().chain([root]).chain(kubepods)
    }

    /// Converts each cgroup.
    pub fn try_map<U, E>(
        &self,
        convert: impl Fn(&T) -> Result<U, E>,
    ) -> Result<AttachPoints<U>, E> {
        Ok(AttachPoints {
            root: convert(&self.root)?,
            kubepods: self.kubepods.as_ref().map(&convert).transpose()?,
            pod: self.pod.as_ref().map(&convert).transpose()?,
        })
    }
}

impl AttachPoints {
    /// Their paths and IDs.
    #[must_use]
    pub fn names(&self) -> AttachPoints<CgroupName> {
        let name = |cgroup: &Cgroup| CgroupName {
            path: cgroup.path().to_owned(),
            id: cgroup.id(),
        };
        AttachPoints {
            root: name(&self.root),
            kubepods: self.kubepods.as_ref().map(name),
            pod: self.pod.as_ref().map(name),
        }
    }
}

fn hooks(belongs: impl Fn(Hook) -> bool) -> Vec<Hook> {
    let all = CGROUP_HOOKS.into_iter();
    all.filter(|hook| belongs(*hook)).collect()
}

/// Whether only the sockets of the pod's containers need a hook: it registers the proxy's listeners,
/// returns the original destination, or refuses socket options that bypass the proxy. These hooks are
/// called most: for every state of a connection, in every `getsockopt` and `setsockopt`.
fn is_for_pod(hook: Hook) -> bool {
    matches!(
        hook.attach_type,
        BPF_CGROUP_SOCK_OPS | BPF_CGROUP_GETSOCKOPT | BPF_CGROUP_SETSOCKOPT
    )
}

/// Whether a hook evaluates the destination of a socket.
fn is_destination(hook: Hook) -> bool {
    matches!(
        hook.attach_type,
        BPF_CGROUP_INET4_CONNECT
            | BPF_CGROUP_INET6_CONNECT
            | BPF_CGROUP_UDP4_SENDMSG
            | BPF_CGROUP_UDP6_SENDMSG
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(attach_points: &AttachPoints<&str>, cgroup: &str) -> Vec<&'static str> {
        let mut each = attach_points.with_hooks();
        let (_, hooks) = each.find(|(at, _)| **at == cgroup).unwrap();
        hooks.iter().map(|hook| hook.program).collect()
    }

    #[test]
    fn one_cgroup_gets_every_hook() {
        let attach_points = AttachPoints::single("root");
        assert_eq!(programs(&attach_points, "root").len(), CGROUP_HOOKS.len());
        assert_eq!(attach_points.with_hooks().count(), 1);
    }

    #[test]
    fn only_the_pod_pays_for_its_proxy() {
        let attach_points = AttachPoints {
            root: "root",
            kubepods: Some("kubepods"),
            pod: Some("pod"),
        };
        let for_pod = programs(&attach_points, "pod");
        assert_eq!(for_pod, ["icept_sockops", "icept_origdst", "icept_setopt"]);
        let at_root = programs(&attach_points, "root");
        assert!(!at_root.iter().any(|program| for_pod.contains(program)));
        assert_eq!(
            programs(&attach_points, "kubepods"),
            [
                "icept_send4",
                "icept_send6",
                "icept_connect4",
                "icept_connect6"
            ]
        );
    }
}
