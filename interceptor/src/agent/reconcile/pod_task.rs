//! The task of one pod: finds its sandbox, captures it, and watches its network until the pod is
//! deleted. The task sleeps until something about the pod changes.

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
    network_watch::watch_until_detached,
    worker::{AttachRequest, IstiosRules},
};
use crate::{
    agent::{
        backoff::Backoff,
        blocking::blocking,
        host::{kubepods::Kubepods, sandboxes::Processes},
        policy::{
            index::{CaptureTime, Captured},
            pod::PodUid,
        },
    },
    dataplane::{attach::Attached, registry::AttachedPod},
    netns::{Netns, NetnsId},
    pod_name::PodName,
};

/// Checks for a process in the pod's network namespace while the cgroup has processes in the host's
/// only. (`runc init` enters the cgroup first.)
const NETNS_ENTRY_RETRIES: u32 = 8;

const NETNS_ENTRY_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(10), Duration::from_millis(1280));

/// The next step of a pod's task.
enum Next {
    /// The pod is captured: watch its network.
    Watch(Arc<Netns>),
    /// Wait until something changes.
    Wait,
    /// Reconcile again after this time, or when something changes.
    Retry(Duration),
    /// The pod was deleted and its processes have exited.
    End,
}

/// The watch of the pod's network. It continues across reconciliations: a new watch would read the
/// whole network each time.
struct NetworkWatch {
    netns: NetnsCookie,
    /// A separate task: it releases its permits of [`super::worker::Capture`] even if no task awaits
    /// it.
    until_detached: JoinHandle<()>,
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.until_detached.abort();
    }
}

/// What caused a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Trigger {
    /// CNI ADD: the runtime waits before it starts the first container.
    Cni,
    /// The agent found a process of the pod in this network namespace.
    Process(NetnsId),
}

impl Trigger {
    const fn expected(self) -> Option<NetnsId> {
        match self {
            Self::Cni => None,
            Self::Process(id) => Some(id),
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
                Next::Retry(wait) => {
                    network = None;
                    tokio::select! {
                        () = self.state.nudge.notified() => {}
                        () = sleep(wait) => {}
                    }
                }
                Next::Watch(netns) => {
                    let is_same = |network: &NetworkWatch| network.netns == netns.cookie();
                    let mut watch = network
                        .take()
                        .filter(is_same)
                        .unwrap_or_else(|| self.watch_network(netns));
                    tokio::select! {
                        () = self.state.nudge.notified() => network = Some(watch),
                        _ended = &mut watch.until_detached => {
                            self.handle_detached(watch.netns).await;
                        }
                    }
                }
            }
        }
    }

    fn watch_network(&self, netns: Arc<Netns>) -> NetworkWatch {
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
                watch_until_detached(&capture, &metrics, &netns).await;
            }),
        }
    }

    async fn reconcile(&self, entering: &mut u32) -> Next {
        let cgroup = self
            .controller
            .sandboxes
            .cgroup(&self.uid.0)
            .map(|cgroup| cgroup.pod);
        self.watch_cgroup(cgroup.as_deref());
        let processes = match self.processes(cgroup).await {
            Ok(processes) => processes,
            Err(error) => return self.failed(&error),
        };
        match processes {
            Processes::In { netns, id } => {
                *entering = 0;
                self.reconcile_in(netns, id).await
            }
            Processes::InHosts
                if *entering < NETNS_ENTRY_RETRIES && !self.state.is_deleted.get() =>
            {
                *entering += 1;
                Next::Retry(NETNS_ENTRY_BACKOFF.delay(*entering - 1))
            }
            _ if self.state.is_deleted.get() => self.end().await,
            _ => self.without_processes().await,
        }
    }

    fn watch_cgroup(&self, cgroup: Option<&Path>) {
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

    /// Reconciles a pod whose network namespace is known from a process.
    async fn reconcile_in(&self, netns: PathBuf, id: NetnsId) -> Next {
        let active = self.state.active.lock().await.clone();
        let is_here = |active: &ActiveCapture| active.netns.id().is_ok_and(|found| found == id);
        let wanted = self.controller.settings(&self.uid);
        match (active, wanted) {
            (Some(active), Some(wanted)) if is_here(&active) && active.settings == wanted => {
                Next::Watch(active.netns)
            }
            // A captured pod stays captured, even if its object changes.
            (Some(active), None) if is_here(&active) => Next::Watch(active.netns),
            (_, None) => {
                self.release().await;
                Next::Wait
            }
            (_, Some(_)) if !self.controller.may_repair(&self.uid) => Next::Wait,
            (_, _) => match self.capture_at(netns, Trigger::Process(id)).await {
                Ok(active) => Next::Watch(active.netns),
                Err(error) if error.is::<IstiosRules>() => self.skip_for_istio_rules(&error).await,
                Err(error) => self.failed(&error),
            },
        }
    }

    /// Reconciles a pod without processes: not started, between two sandboxes, or terminating.
    async fn without_processes(&self) -> Next {
        let mut active = self.state.active.lock().await;
        let reported = self.state.reported_netns.borrow().clone();
        let is_reported = reported.is_some_and(|path| {
            let id = NetnsId::of(&path).ok();
            active
                .as_ref()
                .is_some_and(|active| active.netns.id().ok() == id)
        });
        match &*active {
            // Between ADD and the first process.
            Some(active) if is_reported => Next::Watch(active.netns.clone()),
            // An open network namespace is not deleted.
            Some(_) => {
                *active = None;
                self.controller.sweep.notify_one();
                Next::Wait
            }
            None => Next::Wait,
        }
    }

    /// Closes a network namespace that the pod no longer uses: the kernel does not delete an open one.
    async fn release(&self) {
        if self.state.active.lock().await.take().is_some() {
            self.controller.sweep.notify_one();
        }
    }

    /// Captures the pod in the network namespace at `path`. The policy is effective on return.
    pub(in crate::agent) async fn capture_at(
        &self,
        path: PathBuf,
        trigger: Trigger,
    ) -> Result<ActiveCapture> {
        let mut active = self.state.active.lock().await;
        let settings = self
            .controller
            .settings(&self.uid)
            .context("the pod no longer requires capture")?;
        let request = AttachRequest {
            netns: path,
            expected: trigger.expected(),
            pod: self.pod_name(),
            cgroup: self.controller.sandboxes.cgroup(&self.uid.0),
            settings: settings.clone(),
            allow_istio: self.controller.options.install.allow_istio_cni,
        };
        let result = self.controller.capture.attach(request).await;
        let captured = result.inspect_err(|error| {
            if trigger != Trigger::Cni && !error.is::<IstiosRules>() {
                self.controller.metrics.repair(false);
            }
        })?;
        self.controller.metrics.attached(captured.took);
        let now = ActiveCapture {
            netns: captured.netns,
            settings,
        };
        let before = active.replace(now.clone());
        drop(active);
        if before.is_some_and(|before| before.netns.cookie() != now.netns.cookie()) {
            // The pod has a new sandbox: the old one is to be swept.
            self.controller.sweep.notify_one();
        }
        let is_repaired = trigger != Trigger::Cni && captured.attached == Attached::New;
        let time = if is_repaired {
            CaptureTime::WhileRunning {
                ran: self.state.ran(),
            }
        } else {
            CaptureTime::BeforeStart
        };
        self.record_capture(&now, time);
        if captured.attached == Attached::New {
            let pod = self.name();
            for warning in &captured.warnings {
                warn!(%pod, uid = %self.uid, "{warning}");
            }
            self.report_first_capture(&now, trigger, captured.took)
                .await;
        }
        Ok(now)
    }

    fn record_capture(&self, active: &ActiveCapture, time: CaptureTime) {
        let captured = Captured {
            netns: active.netns.cookie(),
            settings: active.settings.clone(),
        };
        let actions = self
            .controller
            .index
            .borrow_mut()
            .attached(&self.uid, captured, time);
        self.controller.apply_actions(actions);
        self.controller.count();
    }

    async fn report_first_capture(&self, active: &ActiveCapture, trigger: Trigger, took: Duration) {
        let pod = self.name();
        let ran = self.state.ran();
        // During CNI ADD, reported containers ran in an earlier sandbox.
        let uncaptured = ran.filter(|_| trigger != Trigger::Cni);
        self.controller
            .metrics
            .uncaptured(uncaptured.unwrap_or_default());
        let netns = active.netns.path().display();
        info!(%pod, uid = %self.uid, %netns, ?took, "captured");
        for note in self.notes() {
            warn!(%pod, uid = %self.uid, "{note}");
        }
        if trigger == Trigger::Cni {
            return;
        }
        self.controller.metrics.repair(true);
        if self.controller.options.pods.close_connections && ran.is_some() {
            self.close_connections(&pod, active).await;
        }
    }

    fn name(&self) -> String {
        self.pod_name()
            .map_or_else(String::new, |name| name.to_string())
    }

    fn pod_name(&self) -> Option<PodName> {
        let index = self.controller.index.borrow();
        index.pod(&self.uid).map(|pod| pod.name.clone())
    }

    /// Notes about settings of the pod that have no effect.
    fn notes(&self) -> Vec<String> {
        let index = self.controller.index.borrow();
        let plan = index.plan(&self.uid);
        plan.map_or_else(Vec::new, |plan| plan.notes.clone())
    }

    /// Closes connections that bypass the proxy because they were established before capture.
    async fn close_connections(&self, pod: &str, active: &ActiveCapture) {
        let active = active.clone();
        match blocking(move || close_uncaptured(&active.netns, &active.settings)).await {
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

    /// Leaves the pod to Istio's iptables rules until it has a new sandbox.
    async fn skip_for_istio_rules(&self, why: &Error) -> Next {
        self.release().await;
        let actions = self
            .controller
            .index
            .borrow_mut()
            .skip_for_istio_rules(&self.uid, &why.to_string());
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
        wait.map_or(Next::Wait, Next::Retry)
    }

    async fn handle_detached(&self, netns: NetnsCookie) {
        warn!(uid = %self.uid, "pod detached by another process: attaching it again");
        *self.state.active.lock().await = None;
        let lost = self.controller.index.borrow_mut().lost(&self.uid, netns);
        self.controller.apply_actions(lost);
        self.controller.reconsider(&self.uid).await;
    }

    /// Detaches a pod whose processes have exited.
    async fn end(&self) -> Next {
        // Locked to the end of this function, so that the pod is not captured in the meantime.
        let mut active = self.state.active.lock().await;
        // An open network namespace is not deleted.
        let netns = active.take().map(|active| active.netns.cookie());
        let ended = async {
            for pod in self.controller.capture.attached().await? {
                if !self.state.is_deleted.get() {
                    break;
                }
                if netns == Some(pod.netns) || self.is_attached_for(&pod) {
                    self.controller.capture.remove(pod).await?;
                }
            }
            self.controller.sweep.notify_one();
            Ok::<_, Error>(())
        };
        match ended.await {
            // An event about the pod arrived in the meantime: attach it again.
            Ok(()) if !self.state.is_deleted.get() => Next::Retry(Duration::ZERO),
            Ok(()) => {
                debug!(uid = %self.uid, "pod deleted");
                Next::End
            }
            Err(error) => {
                warn!(uid = %self.uid, "cannot detach a deleted pod, retrying: {error:#}");
                Next::Retry(Duration::from_secs(30))
            }
        }
    }

    /// Whether `attached` is this pod on this node, by the name of its cgroup.
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
