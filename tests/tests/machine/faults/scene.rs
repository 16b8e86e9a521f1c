//! A pod whose capture is attempted again and again.

use interceptor_testkit::{
    actor::Actor,
    inner::put_inside,
    lab::{Lab, NOTHING, Traces, all_captured, all_direct, dial},
    machine::Exclusive,
    netns::Netns,
    users::ROOT,
};

use super::Run;

/// What a host inside the pod dials.
const TO: &str = "10.2.0.9:80";

/// A host for which the pod forwards.
struct Inner {
    actor: Actor,
    _netns: Netns,
}

/// A pod, and its state before it is captured.
pub(super) struct Scene {
    pub(super) lab: Lab,
    before: Traces,
    inner: Option<Inner>,
}

impl Scene {
    pub(super) fn new(alone: &Exclusive) -> Self {
        Self::of(alone, |_| None)
    }

    /// A pod that forwards.
    pub(super) fn that_forwards(alone: &Exclusive) -> Self {
        Self::of(alone, |lab| {
            let cgroup = lab.cgroup.child("inner").expect("a cgroup");
            let netns = Netns::new("inner", Some(&cgroup)).expect("a network namespace");
            put_inside(&lab.pod, &lab.peer, &netns).expect("a host inside");
            let actor = Actor::start("inner", ROOT, netns.namespace(), Some(&cgroup));
            let actor = actor.expect("an actor");
            Some(Inner {
                actor,
                _netns: netns,
            })
        })
    }

    fn of(alone: &Exclusive, inside: impl FnOnce(&Lab) -> Option<Inner>) -> Self {
        let lab = Lab::alone(alone).expect("a lab");
        lab.start_proxy().expect("a proxy");
        let inner = inside(&lab);
        let before = lab.traces().expect("traces");
        Self { lab, before, inner }
    }

    /// The arguments of a command.
    pub(super) fn arguments(&self, verb: &str) -> Vec<String> {
        let netns = self.lab.pod.path().display().to_string();
        vec![verb.to_owned(), "--netns".to_owned(), netns]
    }

    pub(super) fn attach_arguments(&self, flags: &[&str]) -> Vec<String> {
        let cgroup = self.lab.cgroup.path().display().to_string();
        let mut arguments = self.arguments("attach");
        arguments.extend(["--cgroup".to_owned(), cgroup]);
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        arguments
    }

    pub(super) fn attach(&self, flags: &[&str]) {
        self.lab.attach(flags).expect("attached");
    }

    /// The pod is captured completely, or not at all. Returns whether it is.
    #[track_caller]
    pub(super) fn is_captured(&self, run: &Run<'_>) -> bool {
        let mut responses = self.lab.dial_all().expect("dials");
        let (mut captured, mut direct) = (all_captured(), all_direct());
        if let Some(inner) = &self.inner {
            responses.push(dial(&inner.actor, TO).expect("a dial"));
            captured.push("proxy:15006 for 10.2.0.9:80");
            direct.push("remote:80");
        }
        let is_captured = responses == captured;
        assert!(is_captured || responses == direct, "{run}{responses:#?}");
        is_captured
    }

    /// Whether nothing of ours is in the pod.
    pub(super) fn is_untouched(&self) -> bool {
        let changes = self.lab.changes_since(&self.before).expect("traces");
        changes.is_empty() && self.lab.leftovers().expect("leftovers").is_empty()
    }

    /// The next attach completes what a command with a fault has started.
    #[track_caller]
    pub(super) fn expect_attach(&self, flags: &[&str], run: &Run<'_>) {
        let attached = self.lab.attach(flags);
        attached.unwrap_or_else(|error| panic!("{run}then: {error:#}"));
        assert!(self.is_captured(run), "{run}then attached");
    }

    /// The next detach does, and leaves nothing.
    #[track_caller]
    pub(super) fn expect_detach(&self, run: &Run<'_>) {
        let detached = self.lab.detach();
        detached.unwrap_or_else(|error| panic!("{run}then: {error:#}"));
        assert!(!self.is_captured(run), "{run}then detached");
        let changes = self.lab.changes_since(&self.before).expect("traces");
        assert_eq!(changes, NOTHING, "{run}");
        assert_eq!(self.lab.leftovers().expect("leftovers"), NOTHING, "{run}");
    }
}
