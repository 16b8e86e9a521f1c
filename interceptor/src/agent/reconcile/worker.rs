//! Attaching and detaching pods outside the agent's own thread: entering network namespaces and loading
//! programs blocks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::{
    agent::{blocking::blocking, host::sandboxes::PodCgroup},
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
        registry::AttachedPod,
        steps::{self, DataplaneAccess},
    },
    host,
    netns::{Netns, NetnsId, NetnsSpec, istio_rules},
    pod_name::PodName,
    settings::Settings,
};

/// Attaches and detaches the pods of this node.
#[derive(Clone)]
pub struct Capture {
    hierarchy: Arc<Hierarchy>,
    root: Option<PathBuf>,
    dataplane: Arc<Mutex<Dataplane>>,
    /// Changes wait here without occupying a thread, all in one queue. Two permits: while one change is
    /// committed, the next is prepared.
    prepare_permits: Arc<Semaphore>,
    /// Held during a change.
    commit_permit: Arc<Semaphore>,
    /// Held during a refresh of a pod's network. Refreshes do not use the queue, so that pods with many
    /// frequently changing routes delay only each other.
    refresh_permit: Arc<Semaphore>,
}

/// A request to attach a pod.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// The path of the pod's network namespace, from the runtime or of a process.
    pub netns: PathBuf,
    /// The network namespace that the path must lead to. A process may have exited, and its PID be
    /// reused.
    pub expected: Option<NetnsId>,
    /// The pod's name, unless the pod was deleted in the meantime.
    pub pod: Option<PodName>,
    /// The pod's cgroups, if kubelet has created them.
    pub cgroup: Option<PodCgroup>,
    /// The settings to capture it with.
    pub settings: Settings,
    /// Whether to attach even if Istio's rules redirect the pod.
    pub allow_istio: bool,
}

/// A checked request, with the resources that it names opened.
struct PreparedAttach {
    netns: Netns,
    pod: Option<PodName>,
    places: AttachPoints,
    settings: Settings,
    warnings: Vec<String>,
}

/// The pod is not attached because Istio's iptables rules redirect it.
#[derive(Debug, Error)]
#[error(
    "Istio's iptables rules already redirect the pod's traffic: not capturing the pod while it runs"
)]
pub struct IstiosRules;

/// The result of attaching a pod.
#[derive(Debug)]
pub struct AttachedNetns {
    /// Its network namespace, kept open.
    pub netns: Arc<Netns>,
    /// What was changed.
    pub attached: Attached,
    /// How long the change took, without the wait for other changes.
    pub took: Duration,
    /// Effects of other iptables rules in the pod that differ from their effects with Istio's rules.
    pub warnings: Vec<String>,
}

impl Capture {
    /// Fails if this machine cannot attach pods. `root` is a cgroup that contains every pod; the
    /// default is the hierarchy's root.
    pub fn new(root: Option<&Path>) -> Result<Self> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let hierarchy = Hierarchy::find()?;
        // Fails early if `root` is not a cgroup, or not the host's root.
        let _usable = Cgroup::open(&hierarchy, root)?;
        Ok(Self {
            hierarchy: Arc::new(hierarchy),
            root: root.map(Path::to_owned),
            dataplane: Arc::default(),
            prepare_permits: Arc::new(Semaphore::new(2)),
            commit_permit: Arc::new(Semaphore::new(1)),
            refresh_permit: Arc::new(Semaphore::new(1)),
        })
    }

    /// The cgroup that contains kubelet's cgroups.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(&self.hierarchy.mount)
    }

    /// Attaches a pod. The policy is effective on return.
    pub async fn attach(&self, request: AttachRequest) -> Result<AttachedNetns> {
        let _in_line = self.prepare_permits.acquire().await?;
        let capture = self.clone();
        let ready = blocking(move || capture.prepare(request)).await?;
        let capture = self.clone();
        let _turn = self.commit_permit.acquire().await?;
        blocking(move || capture.commit(ready)).await
    }

    fn prepare(&self, request: AttachRequest) -> Result<PreparedAttach> {
        let netns = Netns::open(&NetnsSpec::File(request.netns))?;
        check_is(&netns, request.expected)?;
        netns.check_not_hosts()?;
        if !request.allow_istio && self.is_left_to_istio_now(&netns)? {
            return Err(IstiosRules.into());
        }
        Ok(PreparedAttach {
            pod: request.pod,
            places: self.places(request.cgroup.as_ref())?,
            settings: request.settings,
            // Istio's own rules would be among them.
            warnings: if request.allow_istio {
                Vec::new()
            } else {
                warnings(&netns)
            },
            netns,
        })
    }

    fn commit(&self, ready: PreparedAttach) -> Result<AttachedNetns> {
        let wanted = AttachSpec {
            netns: &ready.netns,
            pod: ready.pod.as_ref(),
            attach_points: &ready.places,
            settings: &ready.settings,
            scan_listeners: false,
        };
        let (attached, took) = steps::attach(&mut &*self, &wanted)?;
        if attached != Attached::Unchanged {
            self.warn_of_limits(&ready.netns);
        }
        Ok(AttachedNetns {
            netns: Arc::new(ready.netns),
            attached,
            took,
            warnings: ready.warnings,
        })
    }

    /// Logs the limits of the copied routes of an attached pod.
    fn warn_of_limits(&self, netns: &Netns) {
        let limits = self.with(|dataplane| dataplane.limits(netns));
        for limit in limits.unwrap_or_default() {
            warn!(netns = %netns.path().display(), "{limit}");
        }
    }

    /// Whether Istio's rules redirect a pod that is not attached.
    pub async fn is_left_to_istio(&self, netns: Netns) -> Result<bool> {
        let capture = self.clone();
        blocking(move || capture.is_left_to_istio_now(&netns)).await
    }

    fn is_left_to_istio_now(&self, netns: &Netns) -> Result<bool> {
        let has_rules = netns.run(istio_rules::are_present).unwrap_or_else(|error| {
            // A failed check of the kernel's rules must not keep a pod from starting.
            warn!(
                "cannot determine whether Istio's iptables rules are present, assuming they are \
                 not: {error:#}"
            );
            false
        });
        Ok(has_rules && !self.with(|dataplane| dataplane.is_attached(netns))?)
    }

    fn places(&self, cgroup: Option<&PodCgroup>) -> Result<AttachPoints> {
        let open = |path: &Path| Cgroup::open(&self.hierarchy, Some(path));
        Ok(AttachPoints {
            root: Cgroup::open(&self.hierarchy, self.root.as_deref())?,
            kubepods: cgroup.map(|cgroup| open(&cgroup.kubepods)).transpose()?,
            pod: cgroup.map(|cgroup| open(&cgroup.pod)).transpose()?,
        })
    }

    /// Copies the current addresses and routes of an attached pod. Returns `None` if the pod is not
    /// attached, and how long the refresh took, without the wait for other changes.
    pub async fn refresh(&self, netns: Arc<Netns>) -> Result<(Option<Attached>, Duration)> {
        let _permit = self.refresh_permit.acquire().await?;
        let capture = self.clone();
        blocking(move || steps::refresh(&mut &capture, &netns, &capture.hierarchy)).await
    }

    /// All pods that are attached on this node.
    pub async fn attached(&self) -> Result<Vec<AttachedPod>> {
        let capture = self.clone();
        self.in_turn(move || capture.with(Dataplane::attached))
            .await
    }

    /// Detaches the network namespace of a deleted pod, if its path still leads there. Otherwise the
    /// kernel deletes it once it is unused, and a [sweep](Self::sweep) detaches it after that.
    pub async fn remove(&self, pod: AttachedPod) -> Result<()> {
        let capture = self.clone();
        self.in_turn(move || {
            let netns = Netns::open(&NetnsSpec::File(pod.record.netns));
            match netns.ok().filter(|netns| netns.cookie() == pod.netns) {
                Some(netns) => capture.with(|dataplane| dataplane.remove(&netns)).map(drop),
                None => Ok(()),
            }
        })
        .await
    }

    /// Cleans up after deleted network namespaces.
    pub async fn sweep(&self) -> Result<()> {
        let capture = self.clone();
        self.in_turn(move || capture.with(Dataplane::sweep)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _in_line = self.prepare_permits.acquire().await?;
        let _turn = self.commit_permit.acquire().await?;
        blocking(work).await
    }

    fn with<T>(&self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        // The machine-wide lock permits one change at a time in any case. After a change that panicked,
        // the next change completes it, as after a killed process.
        let mut dataplane = self
            .dataplane
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut dataplane)
    }
}

impl DataplaneAccess for &Capture {
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        self.with(work)
    }
}

fn check_is(netns: &Netns, expected: Option<NetnsId>) -> Result<()> {
    let found = netns.id()?;
    if expected.is_some_and(|expected| expected != found) {
        bail!(
            "{}: no longer the pod's network namespace, as the process exited; retrying",
            netns.path().display()
        );
    }
    Ok(())
}

/// Effects of other iptables rules in the pod that differ from their effects with Istio's rules.
fn warnings(netns: &Netns) -> Vec<String> {
    netns.run(istio_rules::others).unwrap_or_else(|error| {
        warn!("cannot read the pod's other iptables rules: {error:#}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_path_to_another_network_namespace_is_refused() {
        let own = Path::new("/proc/self/ns/net");
        let netns = Netns::open(&NetnsSpec::File(own.to_owned())).unwrap();
        let id = netns.id().unwrap();
        check_is(&netns, None).unwrap();
        check_is(&netns, Some(id)).unwrap();
        let another = NetnsId::of(Path::new("/proc/self/ns/mnt")).unwrap();
        assert_ne!(another, id);
        let error = check_is(&netns, Some(another)).unwrap_err().to_string();
        assert!(error.contains("/proc/self/ns/net"), "{error}");
    }
}
