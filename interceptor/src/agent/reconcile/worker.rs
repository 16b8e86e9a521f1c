//! Changing what is attached, off the agent's own thread: entering network namespaces and loading
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
    settings::Settings,
};

/// The interception on this node.
#[derive(Clone)]
pub struct Capture {
    hierarchy: Arc<Hierarchy>,
    root: Option<PathBuf>,
    dataplane: Arc<Mutex<Dataplane>>,
    /// Who waits for a change before it waits here, and keeps no thread from others. Pods to attach
    /// and other changes wait in one queue: while one is committed, the next is prepared.
    prepare_permits: Arc<Semaphore>,
    /// Whose change is made.
    commit_permit: Arc<Semaphore>,
    /// Who follows changes of its network: one at a time, and beside the queue, so that pods with many
    /// routes that change all the time keep only one another waiting.
    refresh_permit: Arc<Semaphore>,
}

/// What is to be attached, and where.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// The pod's network namespace, as the runtime or a process names it.
    pub netns: PathBuf,
    /// What must be found there. A process may have ended, and another have its number.
    pub expected: Option<NetnsId>,
    /// The pod's cgroups, if kubelet has made them.
    pub cgroup: Option<PodCgroup>,
    /// How.
    pub settings: Settings,
    /// Whether Istio's rules in it are of no account.
    pub allow_istio: bool,
}

/// What is to be attached, found and looked at.
struct PreparedAttach {
    netns: Netns,
    places: AttachPoints,
    settings: Settings,
    warnings: Vec<String>,
}

/// Why a pod is not attached that could be.
#[derive(Debug, Error)]
#[error(
    "Istio's iptables rules already redirect the pod's traffic: not capturing the pod while it runs"
)]
pub struct IstiosRules;

/// A pod that is attached.
#[derive(Debug)]
pub struct Captured {
    /// Its network namespace, kept open.
    pub netns: Arc<Netns>,
    /// What has been done for it.
    pub attached: Attached,
    /// How long that took, without the wait for other changes.
    pub took: Duration,
    /// What others' rules in it do otherwise than beside Istio's.
    pub warnings: Vec<String>,
}

impl Capture {
    /// Fails where nothing can be attached. `root` is a cgroup that every pod is below: by default
    /// the hierarchy's root.
    pub fn new(root: Option<&Path>) -> Result<Self> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let hierarchy = Hierarchy::find()?;
        // Says so at once if it is no cgroup, or not the host's root.
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

    /// Where kubelet's cgroups are below.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(&self.hierarchy.mount)
    }

    /// Attaches a pod. In force when this returns.
    pub async fn attach(&self, request: AttachRequest) -> Result<Captured> {
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
            places: self.places(request.cgroup.as_ref())?,
            settings: request.settings,
            // Istio's own would be among them.
            warnings: if request.allow_istio {
                Vec::new()
            } else {
                warnings(&netns)
            },
            netns,
        })
    }

    fn commit(&self, ready: PreparedAttach) -> Result<Captured> {
        let wanted = AttachSpec {
            netns: &ready.netns,
            attach_points: &ready.places,
            settings: &ready.settings,
            log: false,
            scan_listeners: false,
        };
        let (attached, took) = steps::attach(&mut &*self, &wanted)?;
        if attached != Attached::Unchanged {
            self.warn_of_limits(&ready.netns);
        }
        Ok(Captured {
            netns: Arc::new(ready.netns),
            attached,
            took,
            warnings: ready.warnings,
        })
    }

    /// Says what the copied routes of an attached pod cannot be relied on for.
    fn warn_of_limits(&self, netns: &Netns) {
        let limits = self.with(|dataplane| dataplane.limits(netns));
        for limit in limits.unwrap_or_default() {
            warn!(netns = %netns.path().display(), "{limit}");
        }
    }

    /// Whether Istio's rules capture a pod, and we do not.
    pub async fn is_left_to_istio(&self, netns: Netns) -> Result<bool> {
        let capture = self.clone();
        blocking(move || capture.is_left_to_istio_now(&netns)).await
    }

    fn is_left_to_istio_now(&self, netns: &Netns) -> Result<bool> {
        let has_rules = netns.run(istio_rules::are_present).unwrap_or_else(|error| {
            // A kernel that cannot be asked is no reason not to start a pod.
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

    /// Follows what has changed of an attached pod's addresses and routes. `None` if it is not
    /// attached any more. Answers how long that took, without the wait for other changes, too.
    pub async fn refresh(&self, netns: Arc<Netns>) -> Result<(Option<Attached>, Duration)> {
        let _following = self.refresh_permit.acquire().await?;
        let capture = self.clone();
        blocking(move || steps::refresh(&mut &capture, &netns, &capture.hierarchy)).await
    }

    /// All pods that are attached on this node.
    pub async fn attached(&self) -> Result<Vec<AttachedPod>> {
        let capture = self.clone();
        self.in_turn(move || capture.with(Dataplane::attached))
            .await
    }

    /// Detaches a network namespace that no pod has any more, if its path still leads there. If not,
    /// it ends by itself, and what is attached goes when it is [tidied up](Self::tidy) after that.
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
    pub async fn tidy(&self) -> Result<()> {
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
        // One change at a time holds the machine-wide lock in any case. A change that panicked is
        // completed by the next, as one that was killed is.
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

/// What others' rules do otherwise than beside Istio's.
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
    fn a_network_namespace_is_not_taken_for_another_that_its_path_led_to() {
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
