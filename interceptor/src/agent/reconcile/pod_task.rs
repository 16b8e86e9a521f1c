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
    controller::{Held, Node, Tended},
    network_watch::follow,
    worker::{IstiosRules, Order, blocking},
};
use crate::{
    agent::{
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
const ENTERING: u32 = 8;

/// How long the first of these times is.
const FIRST_ENTERING: Duration = Duration::from_millis(10);

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

/// The network that is followed. That goes on while the pod is looked at: begun anew, it would look
/// at all of the network each time.
struct Followed {
    netns: NetnsCookie,
    /// A task of its own: it has its turn of [`super::worker::Capture`] to end, whoever waits for it.
    until_detached: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.until_detached.abort();
    }
}

/// By what a pod is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum By {
    /// The runtime waits for us before it starts the first container.
    Cni,
    /// We have found it ourselves, by a process in this network namespace.
    Ourselves(NetnsId),
}

impl By {
    /// The network namespace that it was found in.
    const fn expected(self) -> Option<NetnsId> {
        match self {
            Self::Cni => None,
            Self::Ourselves(id) => Some(id),
        }
    }
}

impl Node {
    /// Looks after the pod until it is gone.
    pub(in crate::agent) async fn look_after(self: &Rc<Self>, uid: &PodUid, tended: &Tended) {
        let mut entering = 0;
        let mut followed = None;
        loop {
            let next = self.look(uid, tended, &mut entering).await;
            self.count();
            match next {
                Next::End => return,
                Next::Wait => {
                    followed = None;
                    tended.nudge.notified().await;
                }
                Next::Again(wait) => {
                    followed = None;
                    tokio::select! {
                        () = tended.nudge.notified() => {}
                        () = sleep(wait) => {}
                    }
                }
                Next::Follow(netns) => {
                    let is_it = |followed: &Followed| followed.netns == netns.cookie();
                    let mut now = followed
                        .take()
                        .filter(is_it)
                        .unwrap_or_else(|| self.followed(uid, netns));
                    tokio::select! {
                        () = tended.nudge.notified() => followed = Some(now),
                        _ended = &mut now.until_detached => {
                            self.is_detached(uid, tended, now.netns).await;
                        }
                    }
                }
            }
        }
    }

    fn followed(&self, uid: &PodUid, netns: Arc<Netns>) -> Followed {
        let (capture, metrics) = (self.capture.clone(), self.metrics.clone());
        let pod = self.index.borrow().pod(uid).map(|pod| pod.name.clone());
        Followed {
            netns: netns.cookie(),
            until_detached: spawn_local(async move {
                let _counted = pod.map(|pod| metrics.captured(netns.cookie(), pod));
                follow(&capture, &metrics, &netns).await;
            }),
        }
    }

    async fn look(self: &Rc<Self>, uid: &PodUid, tended: &Tended, entering: &mut u32) -> Next {
        let cgroup = self.sandboxes.cgroup(&uid.0).map(|cgroup| cgroup.pod);
        self.watch(uid, tended, cgroup.as_deref());
        let processes = match self.processes(cgroup).await {
            Ok(processes) => processes,
            Err(error) => return self.failed(uid, &error),
        };
        match processes {
            Processes::In { netns, id } => {
                *entering = 0;
                self.look_at(uid, tended, netns, id).await
            }
            Processes::InHosts if *entering < ENTERING && !tended.is_gone.get() => {
                *entering += 1;
                Next::Again(FIRST_ENTERING * 2_u32.pow(*entering - 1))
            }
            _ if tended.is_gone.get() => self.end(uid, tended).await,
            _ => self.without_processes(tended).await,
        }
    }

    fn watch(&self, uid: &PodUid, tended: &Tended, cgroup: Option<&Path>) {
        let Some(cgroup) = cgroup else {
            tended.is_watched.set(false);
            return;
        };
        if !tended.is_watched.get() {
            let watched = self.cgroups.watch_pod(&uid.0, cgroup);
            tended.is_watched.set(watched.is_ok());
            match watched {
                Err(error) if error.kind() != io::ErrorKind::NotFound => warn!(
                    %uid,
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
        let sandboxes = self.sandboxes.clone();
        blocking(move || Ok(sandboxes.processes(&cgroup))).await
    }

    /// The pod's network namespace is known by a process.
    async fn look_at(
        self: &Rc<Self>,
        uid: &PodUid,
        tended: &Tended,
        netns: PathBuf,
        id: NetnsId,
    ) -> Next {
        let held = tended.held.lock().await.clone();
        let is_held = |held: &Held| held.netns.id().is_ok_and(|held| held == id);
        let wanted = self.settings(uid);
        match (held, wanted) {
            (Some(held), Some(wanted)) if is_held(&held) && held.settings == wanted => {
                Next::Follow(held.netns)
            }
            // Captured it stays, whatever became of the pod's object.
            (Some(held), None) if is_held(&held) => Next::Follow(held.netns),
            (_, None) => {
                self.release(tended).await;
                Next::Wait
            }
            (_, Some(_)) if !self.may_repair(uid) => Next::Wait,
            (_, _) => match self.capture_at(uid, tended, netns, By::Ourselves(id)).await {
                Ok(held) => Next::Follow(held.netns),
                Err(error) if error.is::<IstiosRules>() => self.leave(uid, tended, &error).await,
                Err(error) => self.failed(uid, &error),
            },
        }
    }

    /// Nobody of the pod runs: it has not begun, it is between two sandboxes, or it is at its end.
    async fn without_processes(&self, tended: &Tended) -> Next {
        let mut held = tended.held.lock().await;
        let told = tended.told.borrow().clone();
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
                self.tidy.notify_one();
                Next::Wait
            }
            None => Next::Wait,
        }
    }

    /// Lets go of a network namespace that the pod has no more: kept open, it would not end.
    async fn release(&self, tended: &Tended) {
        if tended.held.lock().await.take().is_some() {
            self.tidy.notify_one();
        }
    }

    /// Captures the pod in the network namespace at `path`. In force when this returns.
    pub(in crate::agent) async fn capture_at(
        self: &Rc<Self>,
        uid: &PodUid,
        tended: &Tended,
        path: PathBuf,
        by: By,
    ) -> Result<Held> {
        let mut held = tended.held.lock().await;
        let settings = self
            .settings(uid)
            .context("the pod no longer requires capture")?;
        let order = Order {
            netns: path,
            expected: by.expected(),
            cgroup: self.sandboxes.cgroup(&uid.0),
            settings: settings.clone(),
            allow_istio: self.options.install.allow_istio_cni,
        };
        let result = self.capture.attach(order).await;
        let captured = result.inspect_err(|error| {
            if by != By::Cni && !error.is::<IstiosRules>() {
                self.metrics.repair(false);
            }
        })?;
        self.metrics.attached(captured.took);
        let now = Held {
            netns: captured.netns,
            settings,
        };
        let before = held.replace(now.clone());
        drop(held);
        if before.is_some_and(|before| before.netns.cookie() != now.netns.cookie()) {
            // A new sandbox: the old one goes.
            self.tidy.notify_one();
        }
        let is_repaired = by != By::Cni && captured.attached == Attached::New;
        let how = if is_repaired {
            How::Repaired { ran: tended.ran() }
        } else {
            How::Expected
        };
        self.is_captured_now(uid, &now, how);
        if captured.attached == Attached::New {
            let pod = self.name_of(uid);
            for warning in &captured.warnings {
                warn!(%pod, %uid, "{warning}");
            }
            self.is_captured_first(uid, tended, &now, by, captured.took)
                .await;
        }
        Ok(now)
    }

    fn is_captured_now(self: &Rc<Self>, uid: &PodUid, held: &Held, how: How) {
        let captured = Captured {
            netns: held.netns.cookie(),
            settings: held.settings.clone(),
        };
        let actions = self.index.borrow_mut().attached(uid, captured, how);
        self.carry_out(actions);
        self.count();
    }

    async fn is_captured_first(
        &self,
        uid: &PodUid,
        tended: &Tended,
        held: &Held,
        by: By,
        took: Duration,
    ) {
        let pod = self.name_of(uid);
        let ran = tended.ran();
        // Containers that are told of were in a sandbox before this one, if the runtime waits for us.
        let uncaptured = ran.filter(|_| by != By::Cni);
        self.metrics.uncaptured(uncaptured.unwrap_or_default());
        let netns = held.netns.path().display();
        info!(%pod, %uid, %netns, ?took, "captured");
        for note in self.notes(uid) {
            warn!(%pod, %uid, "{note}");
        }
        if by == By::Cni {
            return;
        }
        self.metrics.repair(true);
        if self.options.pods.close_connections && ran.is_some() {
            self.close_connections(&pod, uid, held).await;
        }
    }

    fn name_of(&self, uid: &PodUid) -> String {
        let index = self.index.borrow();
        let pod = index.pod(uid);
        pod.map_or_else(String::new, |pod| pod.name.to_string())
    }

    /// What the pod asks for in vain.
    fn notes(&self, uid: &PodUid) -> Vec<String> {
        let index = self.index.borrow();
        let intent = index.intent(uid);
        intent.map_or_else(Vec::new, |intent| intent.notes.clone())
    }

    /// Closes what passed the proxy by when the pod was not captured yet.
    async fn close_connections(&self, pod: &str, uid: &PodUid, held: &Held) {
        let held = held.clone();
        match blocking(move || close_uncaptured(&held.netns, &held.settings)).await {
            Ok(0) => {}
            Ok(count) => {
                self.metrics.closed(count);
                info!(%pod, %uid, count, "closed connections established before capture");
            }
            Err(error) => warn!(%pod, %uid, "could not close existing connections; they keep \
                 bypassing the proxy: {error:#}"),
        }
    }

    /// Leaves the pod to Istio's rules, until it has another sandbox.
    async fn leave(self: &Rc<Self>, uid: &PodUid, tended: &Tended, why: &Error) -> Next {
        self.release(tended).await;
        let actions = self.index.borrow_mut().left(uid, &why.to_string());
        self.carry_out(actions);
        Next::Wait
    }

    fn failed(self: &Rc<Self>, uid: &PodUid, error: &Error) -> Next {
        let (wait, actions) = self.index.borrow_mut().failed(uid, &format!("{error:#}"));
        self.carry_out(actions);
        wait.map_or(Next::Wait, Next::Again)
    }

    async fn is_detached(self: &Rc<Self>, uid: &PodUid, tended: &Tended, netns: NetnsCookie) {
        warn!(%uid, "pod detached by another process: attaching it again");
        *tended.held.lock().await = None;
        let lost = self.index.borrow_mut().lost(uid, netns);
        self.carry_out(lost);
        self.reconsider(uid).await;
    }

    /// Takes away what is attached for a pod whose processes are gone.
    async fn end(&self, uid: &PodUid, tended: &Tended) -> Next {
        // Nobody captures it meanwhile.
        let mut held = tended.held.lock().await;
        // Kept open, its network namespace would not end.
        let netns = held.take().map(|held| held.netns.cookie());
        let ended = async {
            for pod in self.capture.attached().await? {
                if !tended.is_gone.get() {
                    break;
                }
                if netns == Some(pod.netns) || self.is_attached_for(&pod, uid) {
                    self.capture.remove(pod).await?;
                }
            }
            self.tidy.notify_one();
            Ok::<_, Error>(())
        };
        match ended.await {
            // It was heard of again: what was taken away is attached again.
            Ok(()) if !tended.is_gone.get() => Next::Again(Duration::ZERO),
            Ok(()) => {
                debug!(%uid, "pod deleted");
                Next::End
            }
            Err(error) => {
                warn!(%uid, "cannot detach a deleted pod, retrying: {error:#}");
                Next::Again(Duration::from_secs(30))
            }
        }
    }

    /// Whether it is this node's pod of this UID, by the name that kubelet gave its cgroup.
    fn is_attached_for(&self, attached: &AttachedPod, uid: &PodUid) -> bool {
        let cgroup = attached.record.pod_cgroup.as_ref();
        cgroup
            .filter(|cgroup| cgroup.path.starts_with(self.capture.root()))
            .and_then(|cgroup| Kubepods::uid(&cgroup.path))
            .is_some_and(|found| found == uid.0)
    }
}
