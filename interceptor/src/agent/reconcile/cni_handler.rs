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
        kube::api,
        options::UnsupportedRuntimePolicy,
        policy::{index::State, pod::PodUid, select::Refusal},
    },
    cni::protocol::{AddRequest, DelRequest, Handler, Outcome},
    netns::{Netns, NetnsId, NetnsSpec},
};

/// How long a pod is asked for that the API server does not know yet: as istio-cni does.
const MAX_LOOKUP_TIME: Duration = Duration::from_secs(30);

/// How long it waits between two questions.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// The part of the plugin's timeout that is reserved for the steps after the lookup.
const RESPONSE_MARGIN: Duration = Duration::from_secs(2);

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Handles requests on behalf of the node.
pub(in crate::agent) struct Plugin(pub(in crate::agent) Rc<Controller>);

impl Handler for Plugin {
    async fn add(&self, request: AddRequest) -> Outcome {
        let outcome = self.added(&request).await;
        let (pod, netns) = (&request.pod, request.netns.display());
        let result = match &outcome {
            Outcome::Captured => "captured",
            Outcome::Skipped { reason } => {
                debug!(%pod, reason, "CNI ADD: pod skipped");
                "skipped"
            }
            Outcome::Failed { reason } => {
                warn!(%pod, %netns, reason, "CNI ADD failed, blocking pod start");
                "failed"
            }
        };
        self.0.metrics.request("add", result);
        self.0.count();
        outcome
    }

    async fn check(&self, request: AddRequest) -> Outcome {
        let outcome = self.checked(&request).await;
        let failed = matches!(outcome, Outcome::Failed { .. });
        self.0
            .metrics
            .request("check", if failed { "failed" } else { "ok" });
        outcome
    }

    async fn del(&self, request: DelRequest) {
        self.0.metrics.request("del", "ok");
        let Some(netns) = &request.netns else {
            self.0.tidy.notify_one();
            return;
        };
        let id = NetnsId::of(netns).ok();
        for tracked in self.0.all_tracked() {
            let mut held = tracked.held.lock().await;
            let is_its = |path: &_| path == netns;
            let is_held = held
                .as_ref()
                .is_some_and(|held| is_its(held.netns.path()) || held.netns.id().ok() == id);
            if is_held {
                // Kept open, it would not end. What is attached stays until it does.
                *held = None;
                tracked.reported_netns.borrow_mut().take();
                let sandbox = &request.container_id;
                let pod = request.pod.as_ref().map(tracing::field::display);
                info!(pod, sandbox, netns = %netns.display(), "CNI DEL: sandbox removed");
                tracked.nudge.notify_one();
            }
        }
        self.0.tidy.notify_one();
    }

    async fn gc(&self) {
        self.0.metrics.request("gc", "ok");
        self.0.tidy.notify_one();
    }
}

impl Plugin {
    async fn added(&self, request: &AddRequest) -> Outcome {
        let uid = match self.find(request).await {
            Ok(uid) => uid,
            Err(reason) => return Outcome::Failed { reason },
        };
        let node = &self.0;
        node.reconsider_runtime(&uid).await;
        if let Ok(netns) = Netns::open(&NetnsSpec::File(request.netns.clone())) {
            node.index.borrow_mut().new_sandbox(&uid, netns.cookie());
        }
        if let Some(outcome) = self.without_capture(&uid) {
            return outcome;
        }
        let tracked = node.track(&uid);
        // Taking away what it had is broken off, and done before it is captured.
        tracked.is_there();
        *tracked.reported_netns.borrow_mut() = Some(request.netns.clone());
        let path = request.netns.clone();
        let task = PodTask::new(node.clone(), uid.clone(), tracked.clone());
        match task.capture_at(path, Trigger::Cni).await {
            Ok(_) => {
                tracked.nudge.notify_one();
                Outcome::Captured
            }
            // By istio-cni, which was called before us.
            Err(error) if error.is::<IstiosRules>() => {
                let reason = error.to_string();
                let actions = node.index.borrow_mut().left(&uid, &reason);
                node.apply_actions(actions);
                Outcome::Skipped { reason }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                let (_, actions) = node.index.borrow_mut().failed(&uid, &reason);
                node.apply_actions(actions);
                Outcome::Failed { reason }
            }
        }
    }

    /// The result for a pod that is not to be captured now.
    fn without_capture(&self, uid: &PodUid) -> Option<Outcome> {
        let node = &self.0;
        let unsupported = node.options.pods.unsupported_runtime_policy;
        let index = node.index.borrow();
        let skipped = |reason: String| Some(Outcome::Skipped { reason });
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            Some(Outcome::Failed { reason })
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
                Some(_waits) => skipped("the pod is captured when its istio-init runs".to_owned()),
                None => failed("the pod's capture settings are unknown"),
            },
            Some(State::Pending { .. } | State::Captured(_)) => None,
            None => failed("the pod was deleted"),
        }
    }

    /// The pod, by the watch; or asked for, if the watch has not told of it yet.
    async fn find(&self, request: &AddRequest) -> Result<PodUid, String> {
        let known = self.0.index.borrow().find(&request.pod).cloned();
        let is_it = |uid: &PodUid| request.uid.as_ref().is_none_or(|wanted| *wanted == uid.0);
        if let Some(uid) = known.filter(is_it) {
            return Ok(uid);
        }
        // Before the plugin times out, so that it receives the reason.
        let wait = Duration::from_secs(self.0.options.install.cni_wait_seconds.into());
        let last = Instant::now() + wait.saturating_sub(RESPONSE_MARGIN).min(MAX_LOOKUP_TIME);
        let problem = loop {
            let timeout = last.saturating_duration_since(Instant::now());
            let timeout = timeout.clamp(Duration::from_secs(1), REQUEST_TIMEOUT);
            match self.request(request, timeout).await {
                Ok(pod) => {
                    let uid = self.0.upsert(&pod).await;
                    return uid.ok_or_else(|| {
                        "incomplete Pod object from the API \
                         server"
                            .to_owned()
                    });
                }
                Err(why) if Instant::now() + LOOKUP_INTERVAL > last => break why,
                Err(_) => sleep(LOOKUP_INTERVAL).await,
            }
        };
        let pod = &request.pod;
        Err(format!(
            "cannot determine whether {pod} is in the mesh: {problem}"
        ))
    }

    async fn request(&self, request: &AddRequest, timeout: Duration) -> Result<k8s::Pod, String> {
        let pods: Api<k8s::Pod> = Api::namespaced(self.0.client.clone(), &request.pod.namespace);
        let pod = api::request(timeout, pods.get_opt(&request.pod.name)).await?;
        let pod = pod.ok_or_else(|| "the API server has no such pod".to_owned())?;
        let uid = PodUid::of(&pod.metadata).map_or_else(String::new, |uid| uid.0);
        if request.uid.as_ref().is_none_or(|wanted| *wanted == uid) {
            return Ok(pod);
        }
        Err(format!(
            "the API server has a different pod of that name, with UID {uid}"
        ))
    }

    async fn checked(&self, request: &AddRequest) -> Outcome {
        let node = &self.0;
        let uid = match self.find(request).await {
            Ok(uid) => uid,
            Err(reason) => return Outcome::Failed { reason },
        };
        if let Some(outcome) = self.without_capture(&uid) {
            return outcome;
        }
        let netns = match Netns::open(&NetnsSpec::File(request.netns.clone())) {
            Ok(netns) => netns,
            Err(error) => {
                let reason = format!("{error:#}");
                return Outcome::Failed { reason };
            }
        };
        if node.index.borrow().is_captured_in(&uid, netns.cookie()) {
            return Outcome::Captured;
        }
        if node.capture.is_left_to_istio(netns).await.unwrap_or(false) {
            let reason = IstiosRules.to_string();
            return Outcome::Skipped { reason };
        }
        Outcome::Failed {
            reason: "the pod is not captured in this network namespace yet".to_owned(),
        }
    }
}
