//! Handles the requests of the CNI plugin.

use std::{rc::Rc, time::Duration};

use k8s_openapi::api::core::v1 as k8s;
use kube::Api;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    controller::Controller,
    pod_task::{PodTask, Trigger},
    worker::IstiosRules,
};
use crate::{
    agent::{
        options::UnsupportedRuntimePolicy,
        policy::{index::State, pod::PodUid, select::Refusal},
    },
    api_server,
    cni::protocol::{AddRequest, DelRequest, Handler, PodResult},
    netns::{Netns, NetnsId, NetnsSpec},
};

/// How long a pod is looked up that the API server does not return yet, as in istio-cni.
const MAX_LOOKUP_TIME: Duration = Duration::from_secs(30);

/// Interval between lookups of a pod.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// The part of the plugin's timeout that is reserved for the steps after the lookup.
const RESPONSE_MARGIN: Duration = Duration::from_secs(2);

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Handles requests on behalf of the node.
pub(in crate::agent) struct CniHandler(pub(in crate::agent) Rc<Controller>);

impl Handler for CniHandler {
    async fn add(&self, request: AddRequest) -> PodResult {
        let result = self.capture(&request).await;
        let (pod, netns) = (&request.pod, request.netns.display());
        let label = match &result {
            PodResult::Captured => "captured",
            PodResult::Skipped { reason } => {
                debug!(%pod, reason, "CNI ADD: pod skipped");
                "skipped"
            }
            PodResult::Failed { reason } => {
                warn!(%pod, %netns, reason, "CNI ADD failed, blocking pod start");
                "failed"
            }
        };
        self.0.metrics.request("add", label);
        self.0.count();
        result
    }

    async fn check(&self, request: AddRequest) -> PodResult {
        let result = self.verify(&request).await;
        let failed = matches!(result, PodResult::Failed { .. });
        self.0
            .metrics
            .request("check", if failed { "failed" } else { "ok" });
        result
    }

    async fn del(&self, request: DelRequest) {
        self.0.metrics.request("del", "ok");
        let Some(netns) = &request.netns else {
            self.0.sweep.notify_one();
            return;
        };
        let id = NetnsId::of(netns).ok();
        for tracked in self.0.all_tracked() {
            let mut active = tracked.active.lock().await;
            let is_same = active
                .as_ref()
                .is_some_and(|active| active.netns.path() == netns || active.netns.id().ok() == id);
            if is_same {
                // An open network namespace is not deleted. The pod stays attached until it is.
                *active = None;
                tracked.reported_netns.borrow_mut().take();
                let sandbox = &request.container_id;
                let pod = request.pod.as_ref().map(tracing::field::display);
                info!(pod, sandbox, netns = %netns.display(), "CNI DEL: sandbox removed");
                tracked.nudge.notify_one();
            }
        }
        self.0.sweep.notify_one();
    }

    async fn gc(&self) {
        self.0.metrics.request("gc", "ok");
        self.0.sweep.notify_one();
    }
}

impl CniHandler {
    async fn capture(&self, request: &AddRequest) -> PodResult {
        let uid = match self.find(request).await {
            Ok(uid) => uid,
            Err(reason) => return PodResult::Failed { reason },
        };
        let node = &self.0;
        node.reconsider_runtime(&uid).await;
        if let Ok(netns) = Netns::open(&NetnsSpec::File(request.netns.clone())) {
            node.index.borrow_mut().new_sandbox(&uid, netns.cookie());
        }
        if let Some(result) = self.without_capture(&uid) {
            return result;
        }
        let tracked = node.track(&uid);
        // Cancels a detach of the pod; its task holds the lock until the detach has stopped.
        tracked.set_existing();
        *tracked.reported_netns.borrow_mut() = Some(request.netns.clone());
        let path = request.netns.clone();
        let task = PodTask::new(node.clone(), uid.clone(), tracked.clone());
        match task.capture_at(path, Trigger::Cni).await {
            Ok(_) => {
                tracked.nudge.notify_one();
                PodResult::Captured
            }
            // istio-cni, which was called before us, wrote the rules.
            Err(error) if error.is::<IstiosRules>() => {
                let reason = error.to_string();
                let actions = node.index.borrow_mut().skip_for_istio_rules(&uid, &reason);
                node.apply_actions(actions);
                PodResult::Skipped { reason }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                let (_, actions) = node.index.borrow_mut().failed(&uid, &reason);
                node.apply_actions(actions);
                PodResult::Failed { reason }
            }
        }
    }

    /// The result for a pod that is not to be captured now.
    fn without_capture(&self, uid: &PodUid) -> Option<PodResult> {
        let node = &self.0;
        let unsupported = node.options.pods.unsupported_runtime_policy;
        let index = node.index.borrow();
        let skipped = |reason: String| Some(PodResult::Skipped { reason });
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            Some(PodResult::Failed { reason })
        };
        match index.state(uid) {
            Some(State::Skipped(why)) => skipped(why.to_string()),
            Some(State::Refused(Refusal::Runtime(why)))
                if unsupported == UnsupportedRuntimePolicy::Ignore =>
            {
                skipped(why.clone())
            }
            Some(State::Refused(why)) => failed(&why.to_string()),
            Some(State::Pending { .. }) if !index.is_due(uid) => match index.plan(uid) {
                Some(_for_istio_init) => {
                    skipped("the pod is captured when its istio-init runs".to_owned())
                }
                None => failed("the pod's capture settings are unknown"),
            },
            Some(State::Pending { .. } | State::Captured(_)) => None,
            None => failed("the pod was deleted"),
        }
    }

    /// The pod as reported by the watch, or else looked up at the API server.
    async fn find(&self, request: &AddRequest) -> Result<PodUid, String> {
        let known = self.0.index.borrow().find(&request.pod).cloned();
        let is_requested =
            |uid: &PodUid| request.uid.as_ref().is_none_or(|wanted| *wanted == uid.0);
        if let Some(uid) = known.filter(is_requested) {
            return Ok(uid);
        }
        // Before the plugin times out, so that it receives the reason.
        let wait = Duration::from_secs(self.0.options.install.cni_wait_seconds.into());
        let deadline = Instant::now() + wait.saturating_sub(RESPONSE_MARGIN).min(MAX_LOOKUP_TIME);
        let problem = loop {
            let timeout = deadline.saturating_duration_since(Instant::now());
            let timeout = timeout.clamp(Duration::from_secs(1), REQUEST_TIMEOUT);
            match self.look_up(request, timeout).await {
                Ok(pod) => {
                    let uid = self.0.upsert(&pod).await;
                    return uid
                        .ok_or_else(|| "incomplete Pod object from the API server".to_owned());
                }
                Err(why) if Instant::now() + LOOKUP_INTERVAL > deadline => break why,
                Err(_) => sleep(LOOKUP_INTERVAL).await,
            }
        };
        let pod = &request.pod;
        Err(format!(
            "cannot determine whether {pod} is in the mesh: {problem}"
        ))
    }

    async fn look_up(&self, request: &AddRequest, timeout: Duration) -> Result<k8s::Pod, String> {
        let pods: Api<k8s::Pod> = Api::namespaced(self.0.client.clone(), &request.pod.namespace);
        let pod = api_server::request(timeout, pods.get_opt(&request.pod.name)).await?;
        let pod = pod.ok_or_else(|| "the API server has no such pod".to_owned())?;
        let uid = PodUid::of(&pod.metadata).map_or_else(String::new, |uid| uid.0);
        if request.uid.as_ref().is_none_or(|wanted| *wanted == uid) {
            return Ok(pod);
        }
        Err(format!(
            "the API server has a different pod of that name, with UID {uid}"
        ))
    }

    async fn verify(&self, request: &AddRequest) -> PodResult {
        let node = &self.0;
        let uid = match self.find(request).await {
            Ok(uid) => uid,
            Err(reason) => return PodResult::Failed { reason },
        };
        if let Some(result) = self.without_capture(&uid) {
            return result;
        }
        let netns = match Netns::open(&NetnsSpec::File(request.netns.clone())) {
            Ok(netns) => netns,
            Err(error) => {
                let reason = format!("{error:#}");
                return PodResult::Failed { reason };
            }
        };
        if node.index.borrow().is_captured_in(&uid, netns.cookie()) {
            return PodResult::Captured;
        }
        if node.capture.is_left_to_istio(netns).await.unwrap_or(false) {
            let reason = IstiosRules.to_string();
            return PodResult::Skipped { reason };
        }
        PodResult::Failed {
            reason: "the pod is not captured in this network namespace yet".to_owned(),
        }
    }
}
