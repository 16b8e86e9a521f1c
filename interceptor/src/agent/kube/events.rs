//! Events on pods, where their owners look.

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

use super::api;
use crate::cni::protocol::PodName;

/// What reports.
const CONTROLLER: &str = "interceptor-agent";

/// So many events are told within [`PERIOD`], of all pods together; what is more is in the log only.
const AT_MOST: usize = 100;

/// See [`AT_MOST`].
const PERIOD: Duration = Duration::from_mins(1);

/// How many are told at a time.
const AT_ONCE: usize = 4;

/// The API server may take so long for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an event's text may be (`noteLengthLimit` of the API server).
const LONGEST: usize = 1024;

/// Tells events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    told: Rc<RefCell<VecDeque<Instant>>>,
    at_once: Rc<Semaphore>,
}

impl Events {
    /// Of this node's agent.
    #[must_use]
    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            client,
            reporter,
            told: Rc::default(),
            at_once: Rc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Something is not as it should be.
    pub fn warn(&self, pod: &PodName, uid: &str, reason: &str, note: &str) {
        self.tell(EventType::Warning, pod, uid, reason, note);
    }

    /// Something has changed.
    pub fn note(&self, pod: &PodName, uid: &str, reason: &str, note: &str) {
        self.tell(EventType::Normal, pod, uid, reason, note);
    }

    fn tell(&self, type_: EventType, pod: &PodName, uid: &str, reason: &str, note: &str) {
        if !self.may_tell() {
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
            let Ok(_turn) = events.at_once.acquire().await else {
                return;
            };
            // Of a second event of the same reason a recorder counts the first once more, whose note
            // is another. (What has been told already does not come here again.)
            let recorder = Recorder::new(events.client, events.reporter);
            let publish = recorder.publish(&event, &reference);
            match timeout(PATIENCE, publish).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("failed to publish event: {}", api::words(&error)),
                Err(_late) => debug!("failed to publish event: timed out"),
            }
        });
    }

    fn may_tell(&self) -> bool {
        let now = Instant::now();
        let mut told = self.told.borrow_mut();
        while told
            .front()
            .is_some_and(|time| now.duration_since(*time) > PERIOD)
        {
            told.pop_front();
        }
        let may = told.len() < AT_MOST;
        if may {
            told.push_back(now);
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
    if note.len() <= LONGEST {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(LONGEST - '…'.len_utf8());
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_where_a_letter_ends() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(LONGEST));
        assert!(long.len() <= LONGEST && long.ends_with("ä…"));
    }
}
