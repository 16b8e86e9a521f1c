//! Looking after one pod: finding its sandbox, having it captured, and following it, for as long as
//! it is there.
//!
//! One task a pod, which sleeps until something of the pod changes.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};
use interceptor_ebpf::NetnsCookie;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    close_connections::close_uncaptured,
    controller::{ActiveCapture, Controller, TrackedPod},
    network_watch::follow,
    worker::{AttachRequest, IstiosRules},
};
use crate::{
    agent::{
        backoff::Backoff,
        blocking::blocking,
        host::{kubepods::Kubepods, sandboxes::Processes},
        policy::{
            index::{Captured, How},
            pod::PodUid,
        },
    },
    dataplane::{attach::Attached, registry::AttachedPod},
    netns::{Netns, NetnsId},
};

/// How often a runtime's process is looked at again that has not entered the pod's network namespace
/// yet, each time after twice as long. (`runc init` is put into the cgroup first.)
const NETNS_ENTRY_RETRIES: u32 = 8;

/// Between checks for a process in the pod's network namespace.
const NETNS_ENTRY_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(10), Duration::from_millis(1280));

/// What is to be done next.
enum Next {
    /// The pod is captured: follow its network.
    Follow(Arc<Netns>),
    /// Nothing until something changes.
    Wait,
    /// Look again after this time, unless something changes before.
    Again(Duration),
    /// The pod and all its processes are gone.
    End,
}

/// The watch of the pod's network. It continues across reconciliations: a new watch would read the
/// whole network each time.
struct NetworkWatch {
    netns: NetnsCookie,
    /// A task of its own: it has its turn of [`super::worker::Capture`] to end, whoever waits for it.
    until_detached: JoinHandle<()>,
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.until_detached.abort();
    }
}

/// By what a pod is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Trigger {
    /// The runtime waits for us before it starts the first container.
    Cni,
    /// We have found it ourselves, by a process in this network namespace.
    Ourselves(NetnsId),
}

impl Trigger {
    /// The network namespace that it was found in.
    const fn expected(self) -> Option<NetnsId> {
        match self {
            Self::Cni => None,
            Self::Ourselves(id) => Some(id),
        }
    }
}

/// Tracks one pod until the pod is deleted.
#[derive(Clone)]
pub(in crate::agent) struct PodTask {
    controller: Rc<Controller>,
    uid: PodUid,
    state: Rc<TrackedPod>,
}

impl PodTask {
    pub(in crate::agent) const fn new(
        controller: Rc<Controller>,
        uid: PodUid,
        state: Rc<TrackedPod>,
    ) -> Self {
        Self {
            controller,
            uid,
            state,
        }
    }

    /// Returns when the pod is deleted and detached.
    pub(in crate::agent) async fn run(&self) {
        let mut entering = 0;
        let mut network = None;
        loop {
            let next = self.reconcile(&mut entering).await;
            self.controller.count();
            match next {
                Next::End => return,
                Next::Wait => {
                    network = None;
                    self.state.nudge.notified().await;
                }
                Next::Again(wait) => {
                    network = None;
                    tokio::select! {
                        () = self.state.nudge.notified() => {}
                        () = sleep(wait) => {}
                    }
                }
                Next::Follow(netns) => {
                    let is_it = |network: &NetworkWatch| network.netns == netns.cookie();
                    let mut now = network
                        .take()
                        .filter(is_it)
                        .unwrap_or_else(|| self.network(netns));
                    tokio::select! {
                        () = self.state.nudge.notified() => network = Some(now),
                        _ended = &mut now.until_detached => {
                            self.is_detached(now.netns).await;
                        }
                    }
                }
            }
        }
    }

    fn network(&self, netns: Arc<Netns>) -> NetworkWatch {
        let (capture, metrics) = (
            self.controller.capture.clone(),
            self.controller.metrics.clone(),
        );
        let pod = self
            .controller
            .index
            .borrow()
            .pod(&self.uid)
            .map(|pod| pod.name.clone());
        NetworkWatch {
            netns: netns.cookie(),
            until_detached: spawn_local(async move {
                let _counted = pod.map(|pod| metrics.captured(netns.cookie(), pod));
                follow(&capture, &metrics, &netns).await;
            }),
        }
    }

    async fn reconcile(&self, entering: &mut u32) -> Next {
        let cgroup = self
            .controller
            .sandboxes
            .cgroup(&self.uid.0)
            .map(|cgroup| cgroup.pod);
        self.watch(cgroup.as_deref());
        let processes = match self.processes(cgroup).await {
            Ok(processes) => processes,
            Err(error) => return self.failed(&error),
        };
        match processes {
            Processes::In { netns, id } => {
                *entering = 0;
                self.reconcile_in(netns, id).await
            }
            Processes::InHosts if *entering < NETNS_ENTRY_RETRIES && !self.state.is_gone.get() => {
                *entering += 1;
                Next::Again(NETNS_ENTRY_BACKOFF.delay(*entering - 1))
            }
            _ if self.state.is_gone.get() => self.end().await,
            _ => self.without_processes().await,
        }
    }

    fn watch(&self, cgroup: Option<&Path>) {
        let Some(cgroup) = cgroup else {
            self.state.is_watched.set(false);
            return;
        };
        if !self.state.is_watched.get() {
            let watched = self.controller.cgroups.watch_pod(&self.uid.0, cgroup);
            self.state.is_watched.set(watched.is_ok());
            match watched {
                Err(error) if error.kind() != io::ErrorKind::NotFound => warn!(
                    uid = %self.uid,
                    "cannot watch the pod's cgroup, so its sandbox may be detected late \
                     (fs.inotify.max_user_watches is a limit of the whole node): {error}"
                ),
                _ => {}
            }
        }
    }

    async fn processes(&self, cgroup: Option<PathBuf>) -> Result<Processes> {
        let Some(cgroup) = cgroup else {
            return Ok(Processes::None);
        };
        let sandboxes = self.controller.sandboxes.clone();
        blocking(move || Ok(sandboxes.processes(&cgroup))).await
    }

    /// The pod's network namespace is known by a process.
    async fn reconcile_in(&self, netns: PathBuf, id: NetnsId) -> Next {
        let held = self.state.held.lock().await.clone();
        let is_held = |held: &ActiveCapture| held.netns.id().is_ok_and(|held| held == id);
        let wanted = self.controller.settings(&self.uid);
        match (held, wanted) {
            (Some(held), Some(wanted)) if is_held(&held) && held.settings == wanted => {
                Next::Follow(held.netns)
            }
            // A captured pod stays captured, whatever its object says.
            (Some(held), None) if is_held(&held) => Next::Follow(held.netns),
            (_, None) => {
                self.release().await;
                Next::Wait
            }
            (_, Some(_)) if !self.controller.may_repair(&self.uid) => Next::Wait,
            (_, _) => match self.capture_at(netns, Trigger::Ourselves(id)).await {
                Ok(held) => Next::Follow(held.netns),
                Err(error) if error.is::<IstiosRules>() => self.leave(&error).await,
                Err(error) => self.failed(&error),
            },
        }
    }

    /// Nobody of the pod runs: it has not begun, it is between two sandboxes, or it is at its end.
    async fn without_processes(&self) -> Next {
        let mut held = self.state.held.lock().await;
        let told = self.state.reported_netns.borrow().clone();
        let stands = told.is_some_and(|told| {
            let there = NetnsId::of(&told).ok();
            held.as_ref()
                .is_some_and(|held| held.netns.id().ok() == there)
        });
        match &*held {
            // Between ADD and the first process.
            Some(held) if stands => Next::Follow(held.netns.clone()),
            // Kept open, it would not end.
            Some(_) => {
                *held = None;
                self.controller.tidy.notify_one();
                Next::Wait
            }
            None => Next::Wait,
        }
    }

    /// Closes a network namespace that the pod no longer has: kept open, it would not be deleted.
    async fn release(&self) {
        if self.state.held.lock().await.take().is_some() {
            self.controller.tidy.notify_one();
        }
    }

    /// Captures the pod in the network namespace at `path`. In force when this returns.
    pub(in crate::agent) async fn capture_at(
        &self,
        path: PathBuf,
        by: Trigger,
    ) -> Result<ActiveCapture> {
        let mut held = self.state.held.lock().await;
        let settings = self
            .controller
            .settings(&self.uid)
            .context("the pod no longer requires capture")?;
        let order = AttachRequest {
            netns: path,
            expected: by.expected(),
            cgroup: self.controller.sandboxes.cgroup(&self.uid.0),
            settings: settings.clone(),
            allow_istio: self.controller.options.install.allow_istio_cni,
        };
        let result = self.controller.capture.attach(order).await;
        let captured = result.inspect_err(|error| {
            if by != Trigger::Cni && !error.is::<IstiosRules>() {
                self.controller.metrics.repair(false);
            }
        })?;
        self.controller.metrics.attached(captured.took);
        let now = ActiveCapture {
            netns: captured.netns,
            settings,
        };
        let before = held.replace(now.clone());
        drop(held);
        if before.is_some_and(|before| before.netns.cookie() != now.netns.cookie()) {
            // A new sandbox: the old one goes.
            self.controller.tidy.notify_one();
        }
        let is_repaired = by != Trigger::Cni && captured.attached == Attached::New;
        let how = if is_repaired {
            How::Repaired {
                ran: self.state.ran(),
            }
        } else {
            How::Expected
        };
        self.is_captured_now(&now, how);
        if captured.attached == Attached::New {
            let pod = self.name();
            for warning in &captured.warnings {
                warn!(%pod, uid = %self.uid, "{warning}");
            }
            self.is_captured_first(&now, by, captured.took).await;
        }
        Ok(now)
    }

    fn is_captured_now(&self, held: &ActiveCapture, how: How) {
        let captured = Captured {
            netns: held.netns.cookie(),
            settings: held.settings.clone(),
        };
        let actions = self
            .controller
            .index
            .borrow_mut()
            .attached(&self.uid, captured, how);
        self.controller.apply_actions(actions);
        self.controller.count();
    }

    async fn is_captured_first(&self, held: &ActiveCapture, by: Trigger, took: Duration) {
        let pod = self.name();
        let ran = self.state.ran();
        // During CNI ADD, reported containers were in a sandbox before this one.
        let uncaptured = ran.filter(|_| by != Trigger::Cni);
        self.controller
            .metrics
            .uncaptured(uncaptured.unwrap_or_default());
        let netns = held.netns.path().display();
        info!(%pod, uid = %self.uid, %netns, ?took, "captured");
        for note in self.notes() {
            warn!(%pod, uid = %self.uid, "{note}");
        }
        if by == Trigger::Cni {
            return;
        }
        self.controller.metrics.repair(true);
        if self.controller.options.pods.close_connections && ran.is_some() {
            self.close_connections(&pod, held).await;
        }
    }

    fn name(&self) -> String {
        let index = self.controller.index.borrow();
        let pod = index.pod(&self.uid);
        pod.map_or_else(String::new, |pod| pod.name.to_string())
    }

    /// What the pod asks for in vain.
    fn notes(&self) -> Vec<String> {
        let index = self.controller.index.borrow();
        let plan = index.plan(&self.uid);
        plan.map_or_else(Vec::new, |plan| plan.notes.clone())
    }

    /// Closes connections that bypass the proxy because they were established before capture.
    async fn close_connections(&self, pod: &str, held: &ActiveCapture) {
        let held = held.clone();
        match blocking(move || close_uncaptured(&held.netns, &held.settings)).await {
            Ok(0) => {}
            Ok(count) => {
                self.controller.metrics.closed(count);
                info!(%pod, uid = %self.uid, count, "closed connections established before capture");
            }
            Err(error) => {
                warn!(%pod, uid = %self.uid, "could not close existing connections; they keep \
                 bypassing the proxy: {error:#}");
            }
        }
    }

    /// Leaves the pod to Istio's rules until it has a new sandbox.
    async fn leave(&self, why: &Error) -> Next {
        self.release().await;
        let actions = self
            .controller
            .index
            .borrow_mut()
            .left(&self.uid, &why.to_string());
        self.controller.apply_actions(actions);
        Next::Wait
    }

    fn failed(&self, error: &Error) -> Next {
        let (wait, actions) = self
            .controller
            .index
            .borrow_mut()
            .failed(&self.uid, &format!("{error:#}"));
        self.controller.apply_actions(actions);
        wait.map_or(Next::Wait, Next::Again)
    }

    async fn is_detached(&self, netns: NetnsCookie) {
        warn!(uid = %self.uid, "pod detached by another process: attaching it again");
        *self.state.held.lock().await = None;
        let lost = self.controller.index.borrow_mut().lost(&self.uid, netns);
        self.controller.apply_actions(lost);
        self.controller.reconsider(&self.uid).await;
    }

    /// Detaches a pod whose processes have exited.
    async fn end(&self) -> Next {
        // No process captures it in the meantime.
        let mut held = self.state.held.lock().await;
        // Kept open, its network namespace would not end.
        let netns = held.take().map(|held| held.netns.cookie());
        let ended = async {
            for pod in self.controller.capture.attached().await? {
                if !self.state.is_gone.get() {
                    break;
                }
                if netns == Some(pod.netns) || self.is_attached_for(&pod) {
                    self.controller.capture.remove(pod).await?;
                }
            }
            self.controller.tidy.notify_one();
            Ok::<_, Error>(())
        };
        match ended.await {
            // It was heard of again: what was taken away is attached again.
            Ok(()) if !self.state.is_gone.get() => Next::Again(Duration::ZERO),
            Ok(()) => {
                debug!(uid = %self.uid, "pod deleted");
                Next::End
            }
            Err(error) => {
                warn!(uid = %self.uid, "cannot detach a deleted pod, retrying: {error:#}");
                Next::Again(Duration::from_secs(30))
            }
        }
    }

    /// Whether it is this node's pod of this UID, by the name that kubelet gave its cgroup.
    fn is_attached_for(&self, attached: &AttachedPod) -> bool {
        let cgroup = attached.record.pod_cgroup.as_ref();
        cgroup
            .filter(|cgroup| cgroup.path.starts_with(self.controller.capture.root()))
            .and_then(|cgroup| Kubepods::uid(&cgroup.path))
            .is_some_and(|found| found == self.uid.0)
    }
}

impl Controller {
    /// Starts the task of a pod, if it has none.
    pub(in crate::agent) fn track(self: &Rc<Self>, uid: &PodUid) -> Rc<TrackedPod> {
        if let Some(tracked) = self.tracked(uid) {
            return tracked;
        }
        let tracked = Rc::new(TrackedPod::default());
        self.tracked
            .borrow_mut()
            .insert(uid.clone(), tracked.clone());
        let (controller, uid) = (self.clone(), uid.clone());
        let task = PodTask::new(self.clone(), uid.clone(), tracked.clone());
        spawn_local(async move {
            task.run().await;
            controller.tracked.borrow_mut().remove(&uid);
            controller.cgroups.forget_pod(&uid.0);
        });
        tracked
    }
}
