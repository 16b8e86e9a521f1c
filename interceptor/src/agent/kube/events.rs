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
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::Semaphore, task::spawn_local, time::timeout};
use tracing::debug;

use crate::{api_server, cni::protocol::PodName};

/// The Events' reporting controller.
const CONTROLLER: &str = "interceptor-agent";

/// Events published within [`RATE_LIMIT_PERIOD`], of all pods together; further ones are only logged.
const MAX_EVENTS: usize = 100;

/// See [`MAX_EVENTS`].
const RATE_LIMIT_PERIOD: Duration = Duration::from_mins(1);

/// Maximum number of concurrent requests.
const MAX_CONCURRENT: usize = 4;

/// Limit for one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum length of an Event's text (`noteLengthLimit` of the API server).
const MAX_NOTE_LENGTH: usize = 1024;

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
            note: Some(shortened(note)),
            action: "Capture".to_owned(),
            secondary: None,
        };
        let reference = reference(pod, uid);
        let events = self.clone();
        spawn_local(async move {
            let Ok(_permit) = events.permits.acquire().await else {
                return;
            };
            // A new recorder each time: a recorder counts a second Event of the same reason as a
            // repetition of the first, with the first one's text. (Repeated notices are dropped
            // before.)
            let recorder = Recorder::new(events.client, events.reporter);
            let publish = recorder.publish(&event, &reference);
            match timeout(REQUEST_TIMEOUT, publish).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(
                    "failed to publish event: {}",
                    api_server::error_text(&error)
                ),
                Err(_late) => debug!("failed to publish event: timed out"),
            }
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

fn shortened(note: &str) -> String {
    if note.len() <= MAX_NOTE_LENGTH {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE_LENGTH - '…'.len_utf8());
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_boundary() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(MAX_NOTE_LENGTH));
        assert!(long.len() <= MAX_NOTE_LENGTH && long.ends_with("ä…"));
    }
}
