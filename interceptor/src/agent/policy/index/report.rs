//! The states of the pods, for operators: of each pod and why, and how many are in each.

use serde::Serialize;

use super::{Entry, Index, State};
use crate::agent::policy::pod::{PodName, PodUid};

/// A pod's state. This is also the schema of the agent's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodReport {
    /// Its name.
    #[serde(flatten)]
    pub pod: PodName,
    /// Its UID.
    pub uid: PodUid,
    /// Whether it is captured.
    pub state: ReportedState,
    /// Why it is in this state.
    pub reason: String,
    /// The last Event about it, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<LastEvent>,
}

/// As in the metric of pods by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedState {
    /// Captured.
    Captured,
    /// To be captured, and not captured yet.
    Pending,
    /// To be captured, and an attempt failed, or its runtime or settings are not supported.
    Failed,
    /// Not to be captured.
    Skipped,
}

/// An Event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastEvent {
    /// Its reason, one word.
    pub reason: &'static str,
    /// Its text.
    pub note: String,
}

/// The number of pods in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Captured.
    pub captured: usize,
    /// To be captured, without a failed attempt.
    pub pending: usize,
    /// To be captured, after a failed attempt; or unsupported.
    pub failed: usize,
    /// Not to be captured.
    pub skipped: usize,
}

impl Index {
    /// The states of all pods, by name.
    #[must_use]
    pub fn reports(&self) -> Vec<PodReport> {
        let mut reports: Vec<_> = self.pods.values().map(Entry::report).collect();
        reports.sort_by(|a, b| a.pod.cmp(&b.pod));
        reports
    }

    /// Counts the pods in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in self.pods.values() {
            let count = match &entry.state {
                State::Captured(_) => &mut counts.captured,
                State::Pending { reason: None } => &mut counts.pending,
                State::Pending { .. } | State::Refused(_) => &mut counts.failed,
                State::Skipped(_) => &mut counts.skipped,
            };
            *count += 1;
        }
        counts
    }
}

impl Entry {
    fn report(&self) -> PodReport {
        let (state, reason) = self.reported_state();
        let last_event = self.last_notice.clone();
        PodReport {
            pod: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            state,
            reason,
            last_event: last_event.map(|(reason, note)| LastEvent { reason, note }),
        }
    }

    fn reported_state(&self) -> (ReportedState, String) {
        match &self.state {
            State::Captured(_) if self.waits_for_istio_init() => (
                ReportedState::Captured,
                "its istio-init container uses the image of Interceptor".to_owned(),
            ),
            State::Captured(_) => (
                ReportedState::Captured,
                "a sidecar was injected into the pod".to_owned(),
            ),
            State::Pending {
                reason: Some(reason),
            } => (
                ReportedState::Failed,
                format!("capture failed, retrying: {reason}"),
            ),
            State::Pending { reason: None } if self.is_due() => (
                ReportedState::Pending,
                "it is captured when its sandbox exists".to_owned(),
            ),
            State::Pending { reason: None } => (
                ReportedState::Pending,
                "it is captured when its istio-init container runs".to_owned(),
            ),
            State::Refused(refusal) => (ReportedState::Failed, refusal.to_string()),
            State::Skipped(skip) => (ReportedState::Skipped, skip.to_string()),
        }
    }
}
