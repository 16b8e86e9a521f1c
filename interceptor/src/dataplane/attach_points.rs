//! Where a pod's sockets are seen: the cgroups that its programs are attached at.

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

/// The cgroups that a pod is attached at.
///
/// On a node `root` is the root of the host's hierarchy, below which every socket of the pod's
/// network namespace is, wherever it was made. `kubepods` is the kubepods cgroup: programs of a cgroup
/// run before those of the cgroups above it (`compute_effective_progs`), so that there the
/// destination is seen which the app has named, before a root-level load balancer (Cilium's,
/// Calico's) rewrites it. What was captured there meets a stand-in at the root, and stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoints<T = Cgroup> {
    /// Every socket of the pod is below it.
    pub root: T,
    /// Where destinations are looked at first.
    pub kubepods: Option<T>,
    /// The pod's own, which every one of its containers is below: for the hooks that only its sockets
    /// need, so that no other socket pays for them.
    pub pod: Option<T>,
}

/// A cgroup as a record names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupName {
    /// Where it is, or was.
    pub path: PathBuf,
    /// As the kernel names it: not used again while the machine is up.
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

    /// Each cgroup with the hooks that it gets: first the pod's own, last where connections are
    /// captured.
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

    /// The same places, named otherwise.
    pub fn try_map<U, E>(&self, name: impl Fn(&T) -> Result<U, E>) -> Result<AttachPoints<U>, E> {
        Ok(AttachPoints {
            root: name(&self.root)?,
            kubepods: self.kubepods.as_ref().map(&name).transpose()?,
            pod: self.pod.as_ref().map(&name).transpose()?,
        })
    }
}

impl AttachPoints {
    /// Their names.
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

/// Whether a hook is for the sockets of the pod's containers alone: it notes where the proxy listens,
/// returns the original destination, and refuses options that lead past the proxy. Those are the
/// hooks that are called most: for every state of a connection, in every `getsockopt` and
/// `setsockopt`.
fn is_for_pod(hook: Hook) -> bool {
    matches!(
        hook.attach_type,
        BPF_CGROUP_SOCK_OPS | BPF_CGROUP_GETSOCKOPT | BPF_CGROUP_SETSOCKOPT
    )
}

/// Whether a hook sees where a socket wants to go.
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

    fn programs(places: &AttachPoints<&str>, place: &str) -> Vec<&'static str> {
        let mut each = places.with_hooks();
        let (_, hooks) = each.find(|(at, _)| **at == place).unwrap();
        hooks.iter().map(|hook| hook.program).collect()
    }

    #[test]
    fn one_cgroup_gets_every_hook() {
        let places = AttachPoints::single("root");
        assert_eq!(programs(&places, "root").len(), CGROUP_HOOKS.len());
        assert_eq!(places.with_hooks().count(), 1);
    }

    #[test]
    fn only_the_pod_pays_for_its_proxy() {
        let places = AttachPoints {
            root: "root",
            kubepods: Some("kubepods"),
            pod: Some("pod"),
        };
        let for_pod = programs(&places, "pod");
        assert_eq!(for_pod, ["icept_sockops", "icept_origdst", "icept_setopt"]);
        let at_root = programs(&places, "root");
        assert!(!at_root.iter().any(|program| for_pod.contains(program)));
        assert_eq!(
            programs(&places, "kubepods"),
            [
                "icept_send4",
                "icept_send6",
                "icept_connect4",
                "icept_connect6"
            ]
        );
    }
}
