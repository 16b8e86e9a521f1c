//! The agent's knowledge of its node's pods, and the decisions about them. Pure: the methods record
//! events and return [`Action`]s.
//!
//! A captured pod stays captured while it runs: later changes of its object can change its settings, if
//! that is enabled, but do not end the capture.

pub(in crate::agent) mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use interceptor_ebpf::NetnsCookie;

use super::{
    annotations::{CaptureFrom, CapturePlan},
    pod::{Pod, PodName, PodUid},
    restriction::captures_superset,
    select::{Decision, Refusal, Runtime, Selection, Skip, decide},
};
use crate::{agent::backoff::Backoff, settings::Settings};

/// Between attempts to capture a pod.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// The init container whose start triggers the capture, if its image is ours.
const ISTIO_INIT: &str = "istio-init";

/// A known pod that the list does not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its UID.
    pub uid: PodUid,
    /// Its name, unless only a previous agent has received its object.
    pub name: Option<PodName>,
}

/// Whether annotation changes apply to running pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveChanges {
    /// Changes do not apply while a pod runs.
    Ignored,
    /// Changes that capture more apply; changes that capture less apply if the namespace allows it.
    Followed,
}

/// What the decision about a pod depends on besides its object.
#[derive(Clone, Debug)]
pub struct PodContext {
    /// The runtime that runs the pod.
    pub runtime: Runtime,
    /// Whether its namespace allows changes that capture less.
    pub may_relax: bool,
}

/// An action that the caller must perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Attach the pod as soon as it has a sandbox, or attach it again with changed settings.
    Attach(PodUid),
    /// Stop tracking the pod; it is detached with its network namespace.
    Forget(PodUid, Option<NetnsCookie>),
    /// Publish an Event.
    Publish(Notice),
}

/// An Event about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The pod's name.
    pub pod: PodName,
    /// The pod's UID.
    pub uid: PodUid,
    /// Whether an operator should act on it.
    pub is_warning: bool,
    /// The Event's reason: one word, for programs.
    pub reason: &'static str,
    /// The Event's text.
    pub note: String,
}

/// The capture state of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most pods that are kept are captured"
)]
pub enum State {
    /// The pod is not in the mesh, or another program captures it.
    Skipped(Skip),
    /// The pod should be captured and cannot be.
    Refused(Refusal),
    /// The pod is to be captured, now or when its istio-init runs.
    Pending {
        /// The error of the last attempt.
        reason: Option<String>,
    },
    /// The pod is captured.
    Captured(Captured),
}

/// The network namespace and settings of a captured pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The pod's network namespace.
    pub netns: NetnsCookie,
    /// The effective settings.
    pub settings: Settings,
}

/// When a pod was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureTime {
    /// Before its first container started, or earlier by a previous agent.
    BeforeStart,
    /// While it ran.
    WhileRunning {
        /// The time since its first container started, if the API reports it.
        ran: Option<Duration>,
    },
}

#[derive(Debug)]
struct Entry {
    pod: Pod,
    state: State,
    /// How the pod is to be captured, if it is.
    plan: Option<Box<CapturePlan>>,
    /// Failed attempts to apply the plan.
    failures: u32,
    /// The container ID of the previous sandbox's istio-init. Late status reports about that container
    /// do not apply to the current sandbox.
    former_init: Option<String>,
    /// The last notice, to suppress an identical one.
    last_notice: Option<(&'static str, String)>,
}

/// The node's pods.
#[derive(Debug)]
pub struct Index {
    selection: Selection,
    live_changes: LiveChanges,
    pods: BTreeMap<PodUid, Entry>,
    /// Captures of a previous agent, for pods whose objects have not been received yet.
    found: BTreeMap<PodUid, Captured>,
}

impl Index {
    /// An empty index.
    #[must_use]
    pub const fn new(selection: Selection, live_changes: LiveChanges) -> Self {
        Self {
            selection,
            live_changes,
            pods: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }

    /// Registers a pod that a previous agent attached.
    pub fn found(&mut self, uid: PodUid, captured: Captured) {
        self.found.insert(uid, captured);
    }

    /// Adds or updates a pod.
    pub fn apply(&mut self, pod: Pod, context: &PodContext) -> Vec<Action> {
        if pod.is_finished {
            return self.remove(&pod.uid);
        }
        let decision = decide(&pod, &context.runtime, &self.selection);
        match self.pods.remove(&pod.uid) {
            Some(entry) => self.change(entry, pod, decision, context),
            None => self.insert_new(pod, decision, context),
        }
    }

    fn insert_new(&mut self, pod: Pod, decision: Decision, context: &PodContext) -> Vec<Action> {
        if let Some(captured) = self.found.remove(&pod.uid) {
            // In another sandbox, the pod is captured with the same settings, even if its object has
            // changed since.
            let from = match &decision {
                Decision::Capture(plan) => plan.from,
                Decision::Skip(_) | Decision::Refuse(_) => CaptureFrom::Start,
            };
            let plan = CapturePlan {
                settings: captured.settings.clone(),
                notes: Vec::new(),
                from,
            };
            let entry = Entry {
                pod: pod.clone(),
                state: State::Captured(captured),
                plan: Some(Box::new(plan)),
                failures: 0,
                former_init: None,
                last_notice: None,
            };
            return self.change(entry, pod, decision, context);
        }
        let mut entry = Entry::new(pod, decision);
        let actions = entry.first_actions();
        self.insert(entry);
        actions
    }

    fn change(
        &mut self,
        mut entry: Entry,
        pod: Pod,
        decision: Decision,
        context: &PodContext,
    ) -> Vec<Action> {
        let was_due = entry.is_due();
        let ran = entry.pod.has_started;
        entry.pod = pod;
        let actions = match (&entry.state, decision) {
            (State::Captured(captured), Decision::Capture(plan)) => {
                let captured = captured.clone();
                self.change_captured(&mut entry, &captured, plan, context)
            }
            (State::Captured(_), Decision::Skip(reason)) => entry.retain(&format!(
                "the updated object would no longer be captured: {reason}"
            )),
            (State::Captured(_), Decision::Refuse(reason)) => entry.retain(&reason.to_string()),
            (State::Pending { .. }, Decision::Capture(plan)) => {
                entry.plan = Some(plan);
                if entry.is_due() && !was_due {
                    vec![Action::Attach(entry.pod.uid.clone())]
                } else {
                    Vec::new()
                }
            }
            // As with istio-cni, a running pod's annotations are not read again.
            (State::Skipped(_), Decision::Capture(_))
                if ran && self.live_changes == LiveChanges::Ignored =>
            {
                Vec::new()
            }
            // The decision at the pod's start stays.
            (State::Pending { .. }, Decision::Skip(_) | Decision::Refuse(_)) if ran => Vec::new(),
            (_, decision) => entry.reset(decision),
        };
        self.insert(entry);
        actions
    }

    fn change_captured(
        &self,
        entry: &mut Entry,
        captured: &Captured,
        plan: Box<CapturePlan>,
        context: &PodContext,
    ) -> Vec<Action> {
        let (old, new) = (&captured.settings, &plan.settings);
        if old == new {
            entry.plan = Some(plan);
            entry.failures = 0;
            return Vec::new();
        }
        let is_in_progress = |wanted: &CapturePlan| wanted.settings == *new;
        if entry.plan.as_deref().is_some_and(is_in_progress) {
            return Vec::new();
        }
        let applies = self.live_changes == LiveChanges::Followed
            && (captures_superset(old, new) || context.may_relax);
        if !applies {
            let why = match self.live_changes {
                LiveChanges::Ignored => "live changes are off (--live-annotations)",
                LiveChanges::Followed => {
                    "the change would capture less traffic, which the namespace does not allow"
                }
            };
            let note = format!(
                "settings change ignored, previous settings still in effect: {why}. {}",
                difference(old, new)
            );
            return entry.notify(true, "SettingsChangeIgnored", note);
        }
        let note = format!(
            "settings updated from the annotations: {}",
            difference(old, new)
        );
        entry.plan = Some(plan);
        entry.failures = 0;
        let mut actions = vec![Action::Attach(entry.pod.uid.clone())];
        actions.extend(entry.notify(false, "SettingsUpdated", note));
        actions
    }

    fn insert(&mut self, entry: Entry) {
        self.pods.insert(entry.pod.uid.clone(), entry);
    }

    /// Removes a deleted pod.
    pub fn remove(&mut self, uid: &PodUid) -> Vec<Action> {
        let captured = match self.pods.remove(uid).map(|entry| entry.state) {
            Some(State::Captured(captured)) => Some(captured),
            Some(_) => None,
            None => match self.found.remove(uid) {
                Some(captured) => Some(captured),
                None => return Vec::new(),
            },
        };
        let netns = captured.map(|captured| captured.netns);
        vec![Action::Forget(uid.clone(), netns)]
    }

    /// The known pods that are not `listed`.
    #[must_use]
    pub fn missing(&self, listed: &BTreeSet<PodUid>) -> Vec<Missing> {
        let known = self.pods.values().map(|entry| Missing {
            uid: entry.pod.uid.clone(),
            name: Some(entry.pod.name.clone()),
        });
        let found = self.found.keys().cloned();
        let found = found.map(|uid| Missing { uid, name: None });
        known
            .chain(found)
            .filter(|pod| !listed.contains(&pod.uid))
            .collect()
    }

    /// Records that a pod is attached.
    pub fn attached(&mut self, uid: &PodUid, captured: Captured, time: CaptureTime) -> Vec<Action> {
        let Some(entry) = self.pods.get_mut(uid) else {
            return vec![Action::Forget(uid.clone(), Some(captured.netns))];
        };
        let had_failed = mem::take(&mut entry.failures) > 0;
        entry.state = State::Captured(captured);
        match time {
            CaptureTime::WhileRunning { ran } if !entry.waits_for_istio_init() => {
                entry.notify(false, "Repaired", repaired(ran))
            }
            _ if had_failed => entry.notify(
                false,
                "Captured",
                "capture succeeded after earlier failures".to_owned(),
            ),
            _ => Vec::new(),
        }
    }

    /// Records that attaching a pod failed. Returns the delay before the retry, if there is one.
    pub fn failed(&mut self, uid: &PodUid, why: &str) -> (Option<Duration>, Vec<Action>) {
        let Some(entry) = self.pods.get_mut(uid) else {
            return (None, Vec::new());
        };
        let note = match &mut entry.state {
            State::Pending { reason } => {
                *reason = Some(why.to_owned());
                format!("capture failed, retrying: {why}")
            }
            State::Captured(_) => {
                format!(
                    "settings update failed, previous settings still in effect, retrying: \
                     {why}"
                )
            }
            // The decision changed during the attempt.
            State::Skipped(_) | State::Refused(_) => return (None, Vec::new()),
        };
        let wait = BACKOFF.delay(entry.failures);
        entry.failures = entry.failures.saturating_add(1);
        (Some(wait), entry.notify(true, "CaptureFailed", note))
    }

    /// Records that Istio's rules redirect the pod in its current sandbox. It is captured in a new one.
    pub fn skip_for_istio_rules(&mut self, uid: &PodUid, why: &str) -> Vec<Action> {
        match self.pods.get_mut(uid) {
            Some(entry) if matches!(entry.state, State::Pending { .. } | State::Captured(_)) => {
                entry.state = State::NEW;
                entry.failures = 0;
                entry.notify(false, "SkippedIstioRulesPresent", why.to_owned())
            }
            _ => Vec::new(),
        }
    }

    /// Records that a pod was detached in this network namespace.
    pub fn lost(&mut self, uid: &PodUid, netns: NetnsCookie) -> Vec<Action> {
        match self.pods.get_mut(uid) {
            Some(entry) if entry.is_captured_in(netns) => {
                entry.state = State::NEW;
                entry.failures = 0;
                entry.first_actions()
            }
            _ => Vec::new(),
        }
    }

    /// Records that a pod has a sandbox with this network namespace, in which no container has started.
    /// A pod that was captured in an earlier sandbox when its istio-init ran waits for the new one.
    pub fn new_sandbox(&mut self, uid: &PodUid, netns: NetnsCookie) {
        let Some(entry) = self.pods.get_mut(uid) else {
            return;
        };
        let is_captured = matches!(entry.state, State::Captured(_));
        if entry.waits_for_istio_init() && is_captured && !entry.is_captured_in(netns) {
            entry.former_init = entry.istio_init().cloned();
            entry.pod.started_init_containers.clear();
            entry.state = State::NEW;
            entry.failures = 0;
        }
    }

    /// The pod of this name. Of several, all but one of which are terminating, the one that is not
    /// captured yet.
    #[must_use]
    pub fn find(&self, name: &PodName) -> Option<&PodUid> {
        let mut named = self.pods.values().filter(|entry| entry.pod.name == *name);
        let first = named.next()?;
        let newer = named.find(|entry| !matches!(entry.state, State::Captured(_)));
        Some(&newer.unwrap_or(first).pod.uid)
    }

    /// A pod's object.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&Pod> {
        self.pods.get(uid).map(|entry| &entry.pod)
    }

    /// A pod's capture state.
    #[must_use]
    pub fn state(&self, uid: &PodUid) -> Option<&State> {
        self.pods.get(uid).map(|entry| &entry.state)
    }

    /// Whether a pod is captured in this network namespace.
    #[must_use]
    pub fn is_captured_in(&self, uid: &PodUid, netns: NetnsCookie) -> bool {
        let entry = self.pods.get(uid);
        entry.is_some_and(|entry| entry.is_captured_in(netns))
    }

    /// How a pod is to be captured, if it is.
    #[must_use]
    pub fn plan(&self, uid: &PodUid) -> Option<&CapturePlan> {
        self.pods.get(uid)?.plan.as_deref()
    }

    /// The pods that are refused only because their runtime is unknown.
    #[must_use]
    pub fn of_unknown_runtimes(&self) -> Vec<PodUid> {
        let is_unknown =
            |entry: &&Entry| matches!(entry.state, State::Refused(Refusal::UnknownRuntime(_)));
        let unknown = self.pods.values().filter(is_unknown);
        unknown.map(|entry| entry.pod.uid.clone()).collect()
    }

    /// Whether a pod is to be captured now: its istio-init, if it has one of ours, runs.
    #[must_use]
    pub fn is_due(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(Entry::is_due)
    }
}

impl State {
    const NEW: Self = Self::Pending { reason: None };
}

impl Entry {
    fn new(pod: Pod, decision: Decision) -> Self {
        let (state, plan) = match decision {
            Decision::Capture(plan) => (State::NEW, Some(plan)),
            Decision::Skip(reason) => (State::Skipped(reason), None),
            Decision::Refuse(reason) => (State::Refused(reason), None),
        };
        Self {
            pod,
            state,
            plan,
            failures: 0,
            former_init: None,
            last_notice: None,
        }
    }

    fn first_actions(&mut self) -> Vec<Action> {
        match &self.state {
            State::Refused(reason) => {
                let note = format!("pod blocked: it cannot be captured ({reason})");
                self.notify(true, "CaptureUnsupported", note)
            }
            State::Pending { .. } if self.is_due() => vec![Action::Attach(self.pod.uid.clone())],
            _ => Vec::new(),
        }
    }

    fn reset(&mut self, decision: Decision) -> Vec<Action> {
        *self = Self {
            last_notice: self.last_notice.take(),
            former_init: self.former_init.take(),
            ..Self::new(self.pod.clone(), decision)
        };
        self.first_actions()
    }

    fn is_due(&self) -> bool {
        match (&self.state, &self.plan) {
            (State::Pending { .. } | State::Captured(_), Some(plan)) => match plan.from {
                CaptureFrom::Start => true,
                CaptureFrom::IstioInit => self.has_istio_init_started(),
            },
            _ => false,
        }
    }

    /// Whether the pod is to be captured when its istio-init runs, and not before.
    fn waits_for_istio_init(&self) -> bool {
        let plan = self.plan.as_ref();
        plan.is_some_and(|plan| plan.from == CaptureFrom::IstioInit)
    }

    fn has_istio_init_started(&self) -> bool {
        let started = &self.pod.started_init_containers;
        let is_former =
            self.former_init.is_some() && self.istio_init() == self.former_init.as_ref();
        started.iter().any(|name| name == ISTIO_INIT) && !is_former
    }

    fn istio_init(&self) -> Option<&String> {
        self.pod.init_container_ids.get(ISTIO_INIT)
    }

    fn is_captured_in(&self, wanted: NetnsCookie) -> bool {
        matches!(&self.state, State::Captured(Captured { netns, .. }) if *netns == wanted)
    }

    /// Reports that a captured pod stays captured.
    fn retain(&mut self, why: &str) -> Vec<Action> {
        let note = format!("capture retained while the pod runs: {why}");
        self.notify(true, "CaptureRetained", note)
    }

    fn notify(&mut self, is_warning: bool, reason: &'static str, note: String) -> Vec<Action> {
        let notice = Some((reason, note));
        if self.last_notice == notice {
            return Vec::new();
        }
        self.last_notice.clone_from(&notice);
        let note = notice.map(|(_, note)| note).unwrap_or_default();
        vec![Action::Publish(Notice {
            pod: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            is_warning,
            reason,
            note,
        })]
    }
}

fn repaired(ran: Option<Duration>) -> String {
    let ran = ran.map_or_else(String::new, |ran| format!(" for {} s", ran.as_secs()));
    format!("the pod ran uncaptured{ran} and is now captured: new connections go through its proxy")
}

/// The changed settings, as `name: old -> new`.
fn difference(old: &Settings, new: &Settings) -> String {
    let json = |settings| serde_json::to_value(settings).unwrap_or_default();
    let (old, new) = (json(old), json(new));
    let members = old.as_object().into_iter().flatten();
    let changed = members.filter_map(|(name, old)| {
        let new = new.get(name)?;
        (old != new).then(|| format!("{name}: {old} -> {new}"))
    });
    changed.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
