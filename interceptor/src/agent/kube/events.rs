//! Kubernetes Events about pods.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Reporter},
};
use tokio::{sync::Semaphore, task::spawn_local};

use crate::{api_server::events, pod_name::PodName};

/// The Events' reporting controller.
const CONTROLLER: &str = "interceptor-agent";

/// Events published within [`RATE_LIMIT_PERIOD`], of all pods together; further ones are only logged.
const MAX_EVENTS: usize = 100;

/// See [`MAX_EVENTS`].
const RATE_LIMIT_PERIOD: Duration = Duration::from_mins(1);

/// Maximum number of concurrent requests.
const MAX_CONCURRENT: usize = 4;

/// Publishes Events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    published: Rc<RefCell<VecDeque<Instant>>>,
    permits: Rc<Semaphore>,
}

impl Events {
    /// Events of the agent on `node`.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            client,
            reporter,
            published: Rc::default(),
            permits: Rc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }

    /// Publishes a Warning.
    pub fn warn(&self, pod: &PodName, uid: &str, reason: &str, note: &str) {
        self.publish_event(EventType::Warning, pod, uid, reason, note);
    }

    /// Publishes a Normal Event.
    pub fn normal(&self, pod: &PodName, uid: &str, reason: &str, note: &str) {
        self.publish_event(EventType::Normal, pod, uid, reason, note);
    }

    fn publish_event(&self, type_: EventType, pod: &PodName, uid: &str, reason: &str, note: &str) {
        if !self.may_publish() {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Capture".to_owned(),
            secondary: None,
        };
        let reference = reference(pod, uid);
        let Self {
            client,
            reporter,
            permits,
            ..
        } = self.clone();
        spawn_local(async move {
            let Ok(_permit) = permits.acquire().await else {
                return;
            };
            events::publish(client, reporter, event, &reference).await;
        });
    }

    fn may_publish(&self) -> bool {
        let now = Instant::now();
        let mut published = self.published.borrow_mut();
        while published
            .front()
            .is_some_and(|time| now.duration_since(*time) > RATE_LIMIT_PERIOD)
        {
            published.pop_front();
        }
        let may = published.len() < MAX_EVENTS;
        if may {
            published.push_back(now);
        }
        may
    }
}

fn reference(pod: &PodName, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
