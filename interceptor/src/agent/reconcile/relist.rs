//! Known pods that are missing from a list of all pods.
//!
//! Lists come from a watch cache, which may be older than a pod that CNI ADD looked up by name and
//! captured. So a missing pod counts as deleted only if the API server confirms this for that pod: the
//! lookup reads etcd, and the UID of a deleted pod is never used again.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use anyhow::{Error, Result};
use k8s_openapi::api::core::v1 as k8s;
use kube::Api;
use tokio::{task::spawn_local, time::sleep};
use tracing::{debug, warn};

use super::controller::Controller;
use crate::{
    agent::{
        backoff::Backoff,
        policy::{
            index::Missing,
            pod::{PodName, PodUid},
        },
    },
    api_server,
};

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Between attempts to look up the missing pods.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// The maximum age of the initial list. A pod that a previous agent attached has no known name to look
/// up: after this time the watch has reported the pod, or the pod was deleted.
const MAX_LIST_AGE: Duration = Duration::from_secs(5);

impl Controller {
    /// Removes known pods that are not `listed`, once the API server confirms their deletion.
    pub(in crate::agent) fn reconcile_missing(self: &Rc<Self>, listed: &BTreeSet<PodUid>) {
        let missing = self.index.borrow().missing(listed);
        let node = self.clone();
        let search = spawn_local(async move { node.find_missing(missing).await });
        // A newer list supersedes the previous one.
        if let Some(before) = self.search.replace(Some(search.abort_handle())) {
            before.abort();
        }
    }

    async fn find_missing(self: &Rc<Self>, missing: Vec<Missing>) {
        let (mut named, unnamed): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|pod| pod.name.is_some());
        let mut failures = 0_u32;
        loop {
            named = self.find_named(named).await;
            if named.is_empty() {
                break;
            }
            sleep(BACKOFF.delay(failures)).await;
            failures = failures.saturating_add(1);
        }
        if !unnamed.is_empty() {
            sleep(MAX_LIST_AGE).await;
            let is_unreported = |pod: &&Missing| self.index.borrow().pod(&pod.uid).is_none();
            let deleted: Vec<_> = unnamed.iter().filter(is_unreported).collect();
            for pod in deleted {
                self.remove_pod(&pod.uid);
            }
        }
    }

    /// Looks pods up by name. Returns those for which the API server returned no result.
    async fn find_named(self: &Rc<Self>, missing: Vec<Missing>) -> Vec<Missing> {
        let mut unknown = Vec::new();
        for pod in missing {
            match self.exists(&pod).await {
                Ok(true) => debug!(uid = %pod.uid, "pod list is older than the pod"),
                Ok(false) => self.remove_pod(&pod.uid),
                Err(error) => {
                    warn!(uid = %pod.uid, "cannot determine whether the pod was deleted, \
                         retrying: {error:#}");
                    unknown.push(pod);
                }
            }
        }
        unknown
    }

    async fn exists(&self, pod: &Missing) -> Result<bool> {
        let Some(PodName { namespace, name }) = &pod.name else {
            return Ok(true);
        };
        let pods: Api<k8s::Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = api_server::request(REQUEST_TIMEOUT, pods.get_metadata_opt(name)).await;
        let found = found.map_err(Error::msg)?;
        Ok(found.is_some_and(|found| PodUid::of(&found.metadata).as_ref() == Some(&pod.uid)))
    }

    fn remove_pod(self: &Rc<Self>, uid: &PodUid) {
        let actions = self.index.borrow_mut().remove(uid);
        self.apply_actions(actions);
        self.count();
    }
}
