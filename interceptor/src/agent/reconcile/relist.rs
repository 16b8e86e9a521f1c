//! Pods that a list of all pods does not name.
//!
//! Lists come from a watch cache, which may be older than a pod whose CNI ADD has asked for it by
//! name and captured it. So a pod that is missing is gone only once the API server says so of that
//! pod; such an answer is as new as etcd, and a UID that is gone never comes back.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use anyhow::{Error, Result};
use k8s_openapi::api::core::v1 as k8s;
use kube::Api;
use tokio::{task::spawn_local, time::sleep};
use tracing::{debug, warn};

use super::controller::Node;
use crate::agent::{
    kube::api,
    policy::{
        index::Missing,
        pod::{PodName, PodUid},
    },
};

/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first wait after questions that were not answered; each later one is twice as long.
const RETRY: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST: Duration = Duration::from_mins(1);

/// How old a list may be that an agent's first knowledge of the node is. What an agent before us has
/// attached is not known by a name to ask for: by then the watch has named it, or it is gone.
const STALENESS: Duration = Duration::from_secs(5);

impl Node {
    /// Takes note that a list names `there` and no others.
    pub(in crate::agent) fn look_for_others(self: &Rc<Self>, there: &BTreeSet<PodUid>) {
        let missing = self.index.borrow().missing(there);
        let node = self.clone();
        let search = spawn_local(async move { node.look_for(missing).await });
        // A newer list says more than the one before.
        if let Some(before) = self.search.replace(Some(search.abort_handle())) {
            before.abort();
        }
    }

    async fn look_for(self: &Rc<Self>, missing: Vec<Missing>) {
        let (mut named, unnamed): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|pod| pod.name.is_some());
        let mut wait = RETRY;
        loop {
            named = self.look_for_named(named).await;
            if named.is_empty() {
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
        }
        if !unnamed.is_empty() {
            sleep(STALENESS).await;
            let unclaimed = |pod: &&Missing| self.index.borrow().pod(&pod.uid).is_none();
            let gone: Vec<_> = unnamed.iter().filter(unclaimed).collect();
            for pod in gone {
                self.is_gone(&pod.uid);
            }
        }
    }

    /// Answers with those of which nobody knows.
    async fn look_for_named(self: &Rc<Self>, missing: Vec<Missing>) -> Vec<Missing> {
        let mut unknown = Vec::new();
        for pod in missing {
            match self.is_there(&pod).await {
                Ok(true) => debug!(uid = %pod.uid, "pod list is older than the pod"),
                Ok(false) => self.is_gone(&pod.uid),
                Err(error) => {
                    warn!(uid = %pod.uid, "cannot determine whether the pod was deleted, \
                         retrying: {error:#}");
                    unknown.push(pod);
                }
            }
        }
        unknown
    }

    async fn is_there(&self, pod: &Missing) -> Result<bool> {
        let Some(PodName { namespace, name }) = &pod.name else {
            return Ok(true);
        };
        let pods: Api<k8s::Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = api::answer(PATIENCE, pods.get_metadata_opt(name)).await;
        let found = found.map_err(Error::msg)?;
        Ok(found.is_some_and(|found| PodUid::of(&found.metadata).as_ref() == Some(&pod.uid)))
    }

    fn is_gone(self: &Rc<Self>, uid: &PodUid) {
        let actions = self.index.borrow_mut().remove(uid);
        self.carry_out(actions);
        self.count();
    }
}
