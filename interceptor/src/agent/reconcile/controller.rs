//! The node's state, and applying the actions of its index.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use futures_util::future::join_all;
use interceptor_ebpf::NetnsCookie;
use k8s_openapi::{api::core::v1 as k8s, jiff::Timestamp};
use kube::Client;
use tokio::{
    sync::{Mutex, Notify},
    task::{AbortHandle, spawn_local},
    time::sleep,
};
use tracing::{info, warn};

use super::worker::Capture;
use crate::{
    agent::{
        host::{
            cgroup_events::{CgroupEvent, CgroupEvents},
            kubepods::Kubepods,
            sandboxes::Sandboxes,
        },
        install::IstioCni,
        kube::{
            events::Events,
            lookups::{self, Lookups},
            pods,
        },
        options::AgentOptions,
        policy::{
            annotations::CaptureFrom,
            index::{Action, Captured, Index, Notice, State},
            pod::{Pod, PodUid},
        },
        telemetry::{
            health::{Health, Part},
            metrics::{Metrics, PodState},
        },
    },
    netns::{Netns, NetnsId},
    settings::Settings,
};

/// The node's state, owned by one thread; blocking work runs on others.
pub struct Controller {
    pub(in crate::agent) options: AgentOptions,
    pub(in crate::agent) client: Client,
    pub(in crate::agent) capture: Capture,
    pub(in crate::agent) sandboxes: Arc<Sandboxes>,
    pub(in crate::agent) cgroups: CgroupEvents,
    pub(in crate::agent) metrics: Metrics,
    pub(in crate::agent) health: Health,
    pub(in crate::agent) index: RefCell<Index>,
    /// Whether uncaptured running pods are left to istio-cni. True until the first check for istio-cni.
    yields_to_istio_cni: Cell<bool>,
    /// Wakes the sweep of what deleted sandboxes left behind.
    pub(in crate::agent) sweep: Notify,
    events: Events,
    lookups: Lookups,
    pub(super) tracked: RefCell<HashMap<PodUid, Rc<TrackedPod>>>,
    /// Whether a task retries the lookup of unknown runtimes.
    is_retrying_runtimes: Cell<bool>,
    /// The lookup of pods that the last list does not contain.
    pub(in crate::agent) search: RefCell<Option<AbortHandle>>,
}

/// The state of a pod that has a [`PodTask`](super::pod_task::PodTask): captured or to be captured.
#[derive(Default)]
pub(in crate::agent) struct TrackedPod {
    /// Wakes the pod's task: something may have changed.
    pub(in crate::agent) nudge: Notify,
    /// The path of the pod's network namespace, as the runtime reported it.
    pub(in crate::agent) reported_netns: RefCell<Option<PathBuf>>,
    /// Locked by the task that captures or releases the pod.
    pub(in crate::agent) active: Mutex<Option<ActiveCapture>>,
    /// When the pod's first container started.
    pub(in crate::agent) first_start: Cell<Option<Timestamp>>,
    /// Whether the pod's cgroup is watched.
    pub(in crate::agent) is_watched: Cell<bool>,
    /// Whether the pod was deleted. Its task runs until its last process exits.
    pub(in crate::agent) is_deleted: Cell<bool>,
}

impl TrackedPod {
    /// The time since the pod's first container started, if the API reports one.
    pub(in crate::agent) fn ran(&self) -> Option<Duration> {
        let start = self.first_start.get()?;
        Duration::try_from(Timestamp::now().duration_since(start)).ok()
    }

    /// Records that the pod exists, even if a deletion was received before, and wakes its task.
    pub(in crate::agent) fn set_existing(&self) {
        self.is_deleted.set(false);
        self.nudge.notify_one();
    }
}

/// The network namespace in which a pod is captured, kept open, and the settings.
#[derive(Clone)]
pub(in crate::agent) struct ActiveCapture {
    pub(in crate::agent) netns: Arc<Netns>,
    pub(in crate::agent) settings: Settings,
}

impl Controller {
    pub(in crate::agent) fn new(
        options: AgentOptions,
        client: Client,
        metrics: Metrics,
        health: Health,
    ) -> Result<Self> {
        let node = &options.node;
        let capture = Capture::new(node.cgroup_root.as_deref())?;
        let sandboxes = Sandboxes::new(
            &node.host_proc,
            [NetnsId::of_host()?, NetnsId::of_self()?],
            capture.root(),
            node.kubepods_cgroup.as_deref(),
        );
        Ok(Self {
            sandboxes: Arc::new(sandboxes),
            cgroups: CgroupEvents::new()?,
            index: RefCell::new(options.index()),
            events: Events::new(client.clone(), &options.node_name),
            lookups: Lookups::new(client.clone(), options.pods.live_annotations),
            tracked: RefCell::default(),
            yields_to_istio_cni: Cell::new(!options.node.no_cni),
            sweep: Notify::new(),
            is_retrying_runtimes: Cell::default(),
            search: RefCell::default(),
            options,
            client,
            capture,
            metrics,
            health,
        })
    }

    /// Adopts existing captures.
    pub(in crate::agent) async fn adopt(&self) -> Result<()> {
        let attached = self.capture.attached().await?;
        let mut count = 0;
        for pod in attached {
            // Without a pod cgroup: attached by hand, not by an agent.
            let Some(cgroup) = &pod.record.pod_cgroup else {
                continue;
            };
            // In kind, several nodes share this kernel. Pods of another node belong to its agent.
            if !cgroup.path.starts_with(self.capture.root()) {
                continue;
            }
            if let Some(uid) = Kubepods::uid(&cgroup.path) {
                let netns = pod.netns;
                let settings = pod.record.settings;
                let captured = Captured { netns, settings };
                self.index.borrow_mut().found(PodUid(uid), captured);
                count += 1;
            }
        }
        if count > 0 {
            info!(pods = count, "adopted existing captures");
        }
        Ok(())
    }

    /// Handles an event of the pod watch.
    pub(in crate::agent) async fn handle_event(self: &Rc<Self>, event: pods::PodEvent) {
        match event {
            pods::PodEvent::All(pods) => self.handle_list(&pods).await,
            pods::PodEvent::Pod(pod) => {
                self.upsert(&pod).await;
            }
            pods::PodEvent::Deleted(pod) => {
                let uid = PodUid::of(&pod.metadata);
                let actions = uid.map(|uid| self.index.borrow_mut().remove(&uid));
                self.apply_actions(actions.unwrap_or_default());
            }
            pods::PodEvent::Failed(_) => {}
        }
        self.count();
    }

    async fn handle_list(self: &Rc<Self>, pods: &[k8s::Pod]) {
        // Concurrently: a pod whose RuntimeClass must be looked up does not delay the others.
        join_all(pods.iter().map(|pod| self.upsert(pod))).await;
        let listed: BTreeSet<_> = pods
            .iter()
            .filter_map(|pod| PodUid::of(&pod.metadata))
            .collect();
        self.reconcile_missing(&listed);
        info!(pods = pods.len(), "received the node's pod list");
        self.health.resolve(Part::Pods);
    }

    /// Adds or updates a pod.
    pub(in crate::agent) async fn upsert(self: &Rc<Self>, object: &k8s::Pod) -> Option<PodUid> {
        let pod = Pod::of(object)?;
        let uid = pod.uid.clone();
        self.decide(pod).await;
        if self.settings(&uid).is_some() {
            let tracked = self.track(&uid);
            tracked.first_start.set(first_start(object));
            // Restarted containers may be in a new sandbox.
            tracked.set_existing();
        }
        Some(uid)
    }

    /// Decides about a pod again.
    pub(in crate::agent) async fn reconsider(self: &Rc<Self>, uid: &PodUid) {
        let pod = self.index.borrow().pod(uid).cloned();
        if let Some(pod) = pod {
            self.decide(pod).await;
        }
    }

    async fn decide(self: &Rc<Self>, pod: Pod) {
        let is_changed = |known: &Pod| *known != pod;
        let changed = self.index.borrow().pod(&pod.uid).is_some_and(is_changed);
        let context = self.lookups.of(&pod, changed).await;
        let mut index = self.index.borrow_mut();
        let actions = index.apply(pod, &context);
        let is_undecided = !index.of_unknown_runtimes().is_empty();
        drop(index);
        self.apply_actions(actions);
        if is_undecided && !self.is_retrying_runtimes.replace(true) {
            let node = self.clone();
            spawn_local(async move { node.retry_unknown_runtimes().await });
        }
    }

    /// Looks unknown runtimes up until all are known: no watch reports their changes.
    async fn retry_unknown_runtimes(self: &Rc<Self>) {
        loop {
            sleep(lookups::CACHE_TTL).await;
            let undecided = self.index.borrow().of_unknown_runtimes();
            if undecided.is_empty() {
                self.is_retrying_runtimes.set(false);
                return;
            }
            self.lookups.forget_unknown();
            for uid in undecided {
                self.reconsider(&uid).await;
            }
            self.count();
        }
    }

    /// Decides about a pod again if its runtime was unknown: the runtime may be known by now.
    pub(in crate::agent) async fn reconsider_runtime(self: &Rc<Self>, uid: &PodUid) {
        let is_undecided = self.index.borrow().of_unknown_runtimes().contains(uid);
        if is_undecided {
            self.lookups.forget_unknown();
            self.reconsider(uid).await;
        }
    }

    /// Applies the actions of the index.
    pub(in crate::agent) fn apply_actions(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Attach(uid) => self.track(&uid).set_existing(),
                Action::Forget(uid, captured) => self.forget(&uid, captured),
                Action::Publish(notice) => self.publish(&notice),
            }
        }
    }

    fn forget(self: &Rc<Self>, uid: &PodUid, captured: Option<NetnsCookie>) {
        if captured.is_some() || self.tracked(uid).is_some() {
            let tracked = self.track(uid);
            tracked.is_deleted.set(true);
            tracked.nudge.notify_one();
        }
    }

    fn publish(&self, notice: &Notice) {
        let Notice {
            pod,
            uid,
            is_warning,
            reason,
            note,
        } = notice;
        if *is_warning {
            warn!(%pod, %uid, reason, "{note}");
            self.events.warn(pod, &uid.0, reason, note);
        } else {
            info!(%pod, %uid, reason, "{note}");
            self.events.normal(pod, &uid.0, reason, note);
        }
    }

    /// The settings that a pod should be captured with now, if it should be captured.
    pub(in crate::agent) fn settings(&self, uid: &PodUid) -> Option<Settings> {
        let index = self.index.borrow();
        match (index.state(uid)?, index.plan(uid)) {
            (State::Pending { .. }, Some(plan)) if index.is_due(uid) => Some(plan.settings.clone()),
            (State::Captured(_), Some(plan)) => Some(plan.settings.clone()),
            (State::Captured(captured), None) => Some(captured.settings.clone()),
            _ => None,
        }
    }

    /// Whether a running pod may be captured without a CNI call.
    pub(in crate::agent) fn may_repair(&self, uid: &PodUid) -> bool {
        let index = self.index.borrow();
        let by_init = index
            .plan(uid)
            .is_some_and(|plan| plan.from == CaptureFrom::IstioInit);
        let repairs = self.options.pods.repair && !self.yields_to_istio_cni.get();
        repairs || by_init || self.is_captured(uid)
    }

    /// Leaves uncaptured running pods to istio-cni while it is installed. Captured pods stay captured.
    pub(in crate::agent) fn on_istio_cni_changed(&self, istio_cni: &IstioCni) {
        match istio_cni {
            IstioCni::Unknown => return,
            IstioCni::In(file) if self.options.pods.repair => warn!(
                "istio-cni found in {}: running uncaptured pods are left to istio-cni, and \
                 captured once istio-cni is removed",
                file.display()
            ),
            IstioCni::In(_) | IstioCni::Absent => {}
        }
        self.yields_to_istio_cni
            .set(matches!(istio_cni, IstioCni::In(_)));
        if !self.yields_to_istio_cni.get() {
            self.nudge(|_| true);
        }
    }

    pub(in crate::agent) fn is_captured(&self, uid: &PodUid) -> bool {
        matches!(self.index.borrow().state(uid), Some(State::Captured(_)))
    }

    pub(in crate::agent) fn tracked(&self, uid: &PodUid) -> Option<Rc<TrackedPod>> {
        self.tracked.borrow().get(uid).cloned()
    }

    pub(in crate::agent) fn all_tracked(&self) -> Vec<Rc<TrackedPod>> {
        self.tracked.borrow().values().cloned().collect()
    }

    /// Watches kubelet's cgroups and wakes the pods' tasks. Returns only on an error.
    pub(in crate::agent) async fn watch_cgroups(&self) -> Result<()> {
        self.watch_dirs();
        loop {
            for event in self.cgroups.next().await? {
                match event {
                    CgroupEvent::Populated(uid) => {
                        if let Some(tracked) = self.tracked(&PodUid(uid.to_string())) {
                            tracked.nudge.notify_one();
                        }
                    }
                    CgroupEvent::Unwatched(uid) => {
                        if let Some(tracked) = self.tracked(&PodUid(uid.to_string())) {
                            tracked.is_watched.set(false);
                            tracked.nudge.notify_one();
                        }
                    }
                    CgroupEvent::Created => {
                        self.watch_dirs();
                        self.nudge(|tracked| !tracked.is_watched.get());
                    }
                    // The affected pods are unknown.
                    CgroupEvent::Overflow => {
                        self.watch_dirs();
                        self.nudge(|_| true);
                    }
                }
            }
        }
    }

    fn nudge(&self, which: impl Fn(&TrackedPod) -> bool) {
        let tracked = self.all_tracked().into_iter();
        let chosen = tracked.filter(|tracked| which(tracked));
        chosen.for_each(|tracked| tracked.nudge.notify_one());
    }

    fn watch_dirs(&self) {
        let kubepods = self.sandboxes.kubepods();
        if kubepods.is_empty() {
            let root = self.capture.root();
            warn!("no kubelet cgroup below {} yet", root.display());
            let _unwatched = self.cgroups.watch_dir(root);
        }
        for dir in kubepods.iter().flat_map(Kubepods::dirs) {
            // A directory that was deleted in the meantime has no pods.
            let _deleted = self.cgroups.watch_dir(&dir);
        }
    }

    /// Updates the metric of pods by state.
    pub(in crate::agent) fn count(&self) {
        let counts = self.index.borrow().counts();
        self.metrics.pods(&[
            (PodState::Captured, counts.captured),
            (PodState::Pending, counts.pending),
            (PodState::Failed, counts.failed),
            (PodState::Skipped, counts.skipped),
        ]);
    }
}

/// When the first of a pod's containers started.
fn first_start(pod: &k8s::Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    let all = all
        .flat_map(|status| [&status.state, &status.last_state])
        .flatten();
    let starts = all.filter_map(|state| {
        let running = state
            .running
            .as_ref()
            .and_then(|state| state.started_at.as_ref());
        let ended = state
            .terminated
            .as_ref()
            .and_then(|state| state.started_at.as_ref());
        running.or(ended).map(|time| time.0)
    });
    starts.min()
}
