//! What the agent knows of its node's pods, and what is to be done about them. Nothing here does
//! anything: what happens goes in, [`Action`]s come out.
//!
//! A pod that is captured stays captured while it runs: what its object says later can change how,
//! if that is switched on, but never whether.

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

/// The init container that has a pod captured.
const ISTIO_INIT: &str = "istio-init";

/// A pod that is known, and that the list does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its UID.
    pub uid: PodUid,
    /// Its name, unless only an agent before us has seen its object.
    pub name: Option<PodName>,
}

/// Whether what is said of a running pod later is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveChanges {
    /// Nothing changes while a pod runs.
    Ignored,
    /// What captures more is followed, what captures less only where the namespace permits it.
    Followed,
}

/// What the decision about a pod depends on besides its object.
#[derive(Clone, Debug)]
pub struct PodContext {
    /// The runtime that it runs by.
    pub runtime: Runtime,
    /// Whether its namespace permits that less is captured while a pod runs.
    pub may_relax: bool,
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Attach the pod, as soon as it has a sandbox; or again, with other settings.
    Attach(PodUid),
    /// Stop to look after the pod; what is attached for it goes with its network namespace.
    Forget(PodUid, Option<NetnsCookie>),
    /// Publish an Event.
    Publish(Notice),
}

/// An Event about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The pod.
    pub pod: PodName,
    /// Its UID.
    pub uid: PodUid,
    /// Whether an operator should act on it.
    pub is_warning: bool,
    /// What, in one word, for machines.
    pub reason: &'static str,
    /// What, for people.
    pub note: String,
}

/// What a pod is to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most pods that are kept are captured"
)]
pub enum State {
    /// It is not in the mesh, or not ours to capture.
    Skipped(Skip),
    /// It should be captured and cannot be.
    Refused(Refusal),
    /// It is to be captured, now or when its istio-init runs.
    Pending {
        /// Why it failed last, if it has.
        reason: Option<String>,
    },
    /// It is captured.
    Captured(Captured),
}

/// What a pod is captured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its network namespace.
    pub netns: NetnsCookie,
    /// The settings in force.
    pub settings: Settings,
}

/// How many pods are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Captured.
    pub captured: usize,
    /// To be captured, and nothing has failed.
    pub pending: usize,
    /// To be captured, and cannot be, or not yet.
    pub failed: usize,
    /// Left alone.
    pub skipped: usize,
}

/// How a pod came to be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Before its first container started, or it was captured already.
    Expected,
    /// While it ran. The API may say for how long.
    Repaired {
        /// How long ago its first container was started.
        ran: Option<Duration>,
    },
}

#[derive(Debug)]
struct Entry {
    pod: Pod,
    state: State,
    /// How it is to be captured, if it is.
    plan: Option<Box<CapturePlan>>,
    /// How often what the plan asks for has failed.
    failures: u32,
    /// The istio-init of the sandbox before, by the runtime's name for it: late
    /// reports about that one say nothing about the present sandbox.
    former_init: Option<String>,
    /// The last notice, which is not published twice in a row.
    last_notice: Option<(&'static str, String)>,
}

/// The node's pods.
#[derive(Debug)]
pub struct Index {
    selection: Selection,
    live_changes: LiveChanges,
    pods: BTreeMap<PodUid, Entry>,
    /// What was attached before this agent started, for pods that it has not seen yet.
    found: BTreeMap<PodUid, Captured>,
}

impl Index {
    /// An empty one.
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
    pub fn apply(&mut self, pod: Pod, surroundings: &PodContext) -> Vec<Action> {
        if pod.is_over {
            return self.remove(&pod.uid);
        }
        let decision = decide(&pod, &surroundings.runtime, &self.selection);
        match self.pods.remove(&pod.uid) {
            Some(entry) => self.change(entry, pod, decision, surroundings),
            None => self.insert_new(pod, decision, surroundings),
        }
    }

    fn insert_new(&mut self, pod: Pod, decision: Decision, around: &PodContext) -> Vec<Action> {
        if let Some(captured) = self.found.remove(&pod.uid) {
            // Should the pod get another sandbox, it is to be captured there as it was here, even if
            // its object asks for something else by now.
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
            return self.change(entry, pod, decision, around);
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
        around: &PodContext,
    ) -> Vec<Action> {
        let had_begun = entry.is_due();
        let ran = entry.pod.has_started;
        entry.pod = pod;
        let actions = match (&entry.state, decision) {
            (State::Captured(captured), Decision::Capture(plan)) => {
                let captured = captured.clone();
                self.change_captured(&mut entry, &captured, plan, around)
            }
            (State::Captured(_), Decision::Skip(reason)) => entry.keep(&format!(
                "the updated object would no longer be captured: {reason}"
            )),
            (State::Captured(_), Decision::Refuse(reason)) => entry.keep(&reason.to_string()),
            (State::Pending { .. }, Decision::Capture(plan)) => {
                entry.plan = Some(plan);
                if entry.is_due() && !had_begun {
                    vec![Action::Attach(entry.pod.uid.clone())]
                } else {
                    Vec::new()
                }
            }
            // A running pod's annotations are not read again, as with istio-cni.
            (State::Skipped(_), Decision::Capture(_))
                if ran && self.live_changes == LiveChanges::Ignored =>
            {
                Vec::new()
            }
            // It was to be captured when it started.
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
        around: &PodContext,
    ) -> Vec<Action> {
        let (old, new) = (&captured.settings, &plan.settings);
        if old == new {
            entry.plan = Some(plan);
            entry.failures = 0;
            return Vec::new();
        }
        let is_under_way = |wanted: &CapturePlan| wanted.settings == *new;
        if entry.plan.as_deref().is_some_and(is_under_way) {
            return Vec::new();
        }
        let follows = self.live_changes == LiveChanges::Followed
            && (captures_superset(old, new) || around.may_relax);
        if !follows {
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

    /// The pods that are known, and are not among these.
    #[must_use]
    pub fn missing(&self, there: &BTreeSet<PodUid>) -> Vec<Missing> {
        let seen = self.pods.values().map(|entry| Missing {
            uid: entry.pod.uid.clone(),
            name: Some(entry.pod.name.clone()),
        });
        let found = self.found.keys().cloned();
        let found = found.map(|uid| Missing { uid, name: None });
        seen.chain(found)
            .filter(|pod| !there.contains(&pod.uid))
            .collect()
    }

    /// Records that a pod is attached.
    pub fn attached(&mut self, uid: &PodUid, captured: Captured, how: How) -> Vec<Action> {
        let Some(entry) = self.pods.get_mut(uid) else {
            return vec![Action::Forget(uid.clone(), Some(captured.netns))];
        };
        let had_failed = mem::take(&mut entry.failures) > 0;
        entry.state = State::Captured(captured);
        match how {
            How::Repaired { ran } if !entry.waits_for_istio_init() => {
                entry.notify(false, "Repaired", repaired(ran))
            }
            _ if had_failed => entry.notify(
                false,
                "Captured",
                "capture succeeded after earlier \
                 failures"
                    .to_owned(),
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
            // It was decided again while it was attached.
            State::Skipped(_) | State::Refused(_) => return (None, Vec::new()),
        };
        let wait = BACKOFF.delay(entry.failures);
        entry.failures = entry.failures.saturating_add(1);
        (Some(wait), entry.notify(true, "CaptureFailed", note))
    }

    /// Records that a pod is not captured in its present sandbox; in a new sandbox it is.
    pub fn left(&mut self, uid: &PodUid, why: &str) -> Vec<Action> {
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

    /// Takes note that a pod has a sandbox with this network namespace, in which no container has
    /// started. If it was captured in another one when its istio-init ran, it waits for the next.
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

    /// The pod of this name. (Of several, of which all but one are ending, the one that is not
    /// captured yet.)
    #[must_use]
    pub fn find(&self, name: &PodName) -> Option<&PodUid> {
        let mut named = self.pods.values().filter(|entry| entry.pod.name == *name);
        let first = named.next()?;
        let newer = named.find(|entry| !matches!(entry.state, State::Captured(_)));
        Some(&newer.unwrap_or(first).pod.uid)
    }

    /// What the agent knows of a pod.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&Pod> {
        self.pods.get(uid).map(|entry| &entry.pod)
    }

    /// What a pod is to the agent.
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

    /// The pods that are refused only because it is not known what they run by.
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

    /// How many pods are in each state.
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

    /// Whether it is to be captured when its istio-init runs, and not before.
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

    /// A captured pod stays captured.
    fn keep(&mut self, why: &str) -> Vec<Action> {
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

/// What differs, as `name: old -> new`.
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
