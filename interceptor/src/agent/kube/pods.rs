//! Watches the node's pods at the API server. A failed request or an incomplete list removes no pod.

use std::{mem, time::Duration};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::sleep;
use tracing::warn;

use crate::api_server;

/// The annotation in which kubectl stores a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An event of the pod watch.
#[derive(Debug)]
pub enum PodEvent {
    /// The complete list of the node's pods.
    All(Vec<Pod>),
    /// A new or changed pod.
    Pod(Box<Pod>),
    /// A deleted pod.
    Deleted(Box<Pod>),
    /// The watch failed, for this reason. It is retried.
    Failed(String),
}

/// Watches the pods of `node`, after a random part of `jitter`: thousands of agents may start at once.
pub fn watch_pods(
    client: Client,
    node: &str,
    jitter: Duration,
) -> impl Stream<Item = PodEvent> + use<> {
    let mut config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        // Resource version 0: the API server responds from its cache, without a read of etcd.
        .any_semantic();
    // A limit would cause a read of etcd nevertheless, and a node has a few hundred pods.
    config.page_size = None;
    let events = watcher(Api::all(client), config).default_backoff();
    let mut listed = Vec::new();
    let pod_event = events
        .map_ok(|event| event.modify(trim))
        .filter_map(move |event| {
            let pod_event = pod_event(event, &mut listed);
            async move { pod_event }
        });
    async move {
        sleep(part_of(jitter)).await;
        pod_event
    }
    .flatten_stream()
}

fn pod_event(event: Result<Event<Pod>, watcher::Error>, listed: &mut Vec<Pod>) -> Option<PodEvent> {
    match event {
        Ok(Event::Init) => {
            listed.clear();
            None
        }
        Ok(Event::InitApply(pod)) => {
            listed.push(pod);
            None
        }
        Ok(Event::InitDone) => Some(PodEvent::All(mem::take(listed))),
        Ok(Event::Apply(pod)) => Some(PodEvent::Pod(Box::new(pod))),
        Ok(Event::Delete(pod)) => Some(PodEvent::Deleted(Box::new(pod))),
        Err(error) => {
            let problem = api_server::error_text(&error);
            warn!("pod watch failed: {problem}; retrying");
            Some(PodEvent::Failed(problem))
        }
    }
}

/// Removes large parts that are not used.
fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

fn part_of(jitter: Duration) -> Duration {
    // Without random numbers all agents start at once, which is acceptable.
    let random = getrandom::u32().unwrap_or_default();
    jitter.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod
    }

    #[test]
    fn only_a_complete_list_counts() {
        let mut listed = Vec::new();
        assert!(pod_event(Ok(Event::Init), &mut listed).is_none());
        assert!(pod_event(Ok(Event::InitApply(pod("a"))), &mut listed).is_none());
        // The list fails and is retried.
        assert!(matches!(
            pod_event(Err(watcher::Error::NoResourceVersion), &mut listed),
            Some(PodEvent::Failed(_))
        ));
        assert!(pod_event(Ok(Event::Init), &mut listed).is_none());
        assert!(pod_event(Ok(Event::InitApply(pod("b"))), &mut listed).is_none());
        let Some(PodEvent::All(pods)) = pod_event(Ok(Event::InitDone), &mut listed) else {
            panic!("the list is complete");
        };
        assert_eq!(pods, [pod("b")]);
    }

    #[test]
    fn unused_parts_are_removed() {
        let mut pod = pod("a");
        pod.metadata.managed_fields = Some(Vec::new());
        let annotations = [(LAST_APPLIED, "{}"), ("sidecar.istio.io/status", "{}")];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        pod.metadata.annotations = Some(annotations.into());
        trim(&mut pod);
        assert_eq!(pod.metadata.managed_fields, None);
        let kept: Vec<_> = pod.metadata.annotations.unwrap().into_keys().collect();
        assert_eq!(kept, ["sidecar.istio.io/status"]);
    }

    #[test]
    fn jitter_is_bounded() {
        let jitter = Duration::from_millis(100);
        assert!((0..100).all(|_| part_of(jitter) <= jitter));
    }
}
