use serde_json::{Value, json};

use super::{super::select::tests::selection, *};
use crate::agent::fixtures::{injected, pod, running, with_istio_init};

const PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";

fn index(live_changes: LiveChanges) -> Index {
    Index::new(selection(), live_changes)
}

fn context() -> PodContext {
    PodContext {
        runtime: Runtime::Default,
        may_relax: false,
    }
}

fn uid() -> PodUid {
    PodUid("6d0e".to_owned())
}

fn apply(index: &mut Index, manifest: &Value) -> Vec<Action> {
    index.apply(pod(manifest.clone()), &context())
}

/// Reports success of the attach that the index requested.
fn attach(index: &mut Index, netns: NetnsCookie) -> Vec<Action> {
    let settings = index.plan(&uid()).unwrap().settings.clone();
    index.attached(
        &uid(),
        Captured { netns, settings },
        CaptureTime::BeforeStart,
    )
}

fn captured(live_changes: LiveChanges) -> Index {
    let mut index = index(live_changes);
    assert_eq!(apply(&mut index, &injected()), [Action::Attach(uid())]);
    assert_eq!(attach(&mut index, 7), []);
    index
}

fn with_annotation(name: &str, value: &str) -> Value {
    let mut manifest = injected();
    manifest["metadata"]["annotations"][name] = json!(value);
    manifest
}

/// The reasons of the published Events.
fn reasons(actions: &[Action]) -> Vec<&'static str> {
    let reasons = actions.iter().filter_map(|action| match action {
        Action::Publish(notice) => Some(notice.reason),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn reports_say_why_a_pod_is_captured_or_not() {
    let report = |index: &Index| {
        let [report] = &index.reports()[..] else {
            panic!("one pod");
        };
        serde_json::to_value(report).unwrap()
    };
    let mut index = captured(LiveChanges::Ignored);
    let expected = json!({
        "namespace": "shop", "name": "reviews-1", "uid": "6d0e",
        "state": "captured", "reason": "a sidecar was injected into the pod",
    });
    assert_eq!(report(&index), expected);
    index.lost(&uid(), 7);
    assert_eq!(report(&index)["state"], "pending");
    let (_, actions) = index.failed(&uid(), "no memory");
    assert_eq!(reasons(&actions), ["CaptureFailed"]);
    let failed = report(&index);
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["reason"], "capture failed, retrying: no memory");
    assert_eq!(failed["last_event"]["reason"], "CaptureFailed");
    let mut skipped = injected();
    skipped["spec"]["hostNetwork"] = json!(true);
    apply(&mut index, &skipped);
    assert_eq!(report(&index)["reason"], "it uses the host network");
}

#[test]
fn a_pod_is_attached_once() {
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(apply(&mut index, &injected()), []);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_repair_is_published_but_not_for_a_pod_of_our_istio_init() {
    let repair = |index: &mut Index| {
        let settings = index.plan(&uid()).unwrap().settings.clone();
        let ran = Some(Duration::from_secs(90));
        let captured = Captured { netns: 7, settings };
        index.attached(&uid(), captured, CaptureTime::WhileRunning { ran })
    };
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    index.failed(&uid(), "no memory");
    let actions = repair(&mut index);
    assert_eq!(reasons(&actions), ["Repaired"]);
    let is_published = matches!(&actions[..], [Action::Publish(notice)]
        if !notice.is_warning && notice.note.contains("uncaptured for 90 s"));
    assert!(is_published, "{actions:?}");
    let mut index = self::index(LiveChanges::Ignored);
    apply(
        &mut index,
        &with_istio_init("example.com:5000/interceptor:1"),
    );
    assert_eq!(repair(&mut index), []);
}

#[test]
fn a_finished_or_deleted_pod_is_forgotten() {
    let mut finished = injected();
    finished["status"]["phase"] = json!("Succeeded");
    let forgotten = [Action::Forget(uid(), Some(7))];
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(apply(&mut index, &finished), forgotten);
    assert_eq!(apply(&mut index, &finished), []);
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(index.remove(&uid()), forgotten);
}

#[test]
fn a_pod_missing_from_a_list_stays_known() {
    let index = captured(LiveChanges::Ignored);
    assert_eq!(index.missing(&BTreeSet::from([uid()])), []);
    let name = index.pod(&uid()).map(|pod| pod.name.clone());
    let missing = [Missing { uid: uid(), name }];
    assert_eq!(index.missing(&BTreeSet::new()), missing);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_pod_that_a_previous_agent_attached_is_not_attached_again() {
    let mut index = index(LiveChanges::Ignored);
    let before = captured(LiveChanges::Ignored);
    let settings = before.plan(&uid()).unwrap().settings.clone();
    index.found(uid(), Captured { netns: 7, settings });
    assert_eq!(apply(&mut index, &injected()), []);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_deleted_pod_of_a_previous_agent_is_forgotten() {
    let mut index = index(LiveChanges::Ignored);
    let before = captured(LiveChanges::Ignored);
    let settings = before.plan(&uid()).unwrap().settings.clone();
    index.found(uid(), Captured { netns: 7, settings });
    let missing = Missing {
        uid: uid(),
        name: None,
    };
    assert_eq!(index.missing(&BTreeSet::new()), [missing]);
    assert_eq!(index.remove(&uid()), [Action::Forget(uid(), Some(7))]);
}

#[test]
fn a_pod_with_our_istio_init_waits_for_that_container() {
    let mut index = index(LiveChanges::Ignored);
    let mut manifest = with_istio_init("example.com:5000/interceptor:1");
    assert_eq!(apply(&mut index, &manifest), []);
    manifest["status"]["initContainerStatuses"] = json!([running("migrate")]);
    assert_eq!(apply(&mut index, &manifest), []);
    assert!(!index.is_due(&uid()));
    manifest["status"]["initContainerStatuses"] = json!([running("istio-init")]);
    assert_eq!(apply(&mut index, &manifest), [Action::Attach(uid())]);
    assert_eq!(apply(&mut index, &manifest), []);
}

#[test]
fn no_change_of_a_running_pods_object_detaches_it() {
    for live_changes in [LiveChanges::Ignored, LiveChanges::Followed] {
        let mut index = captured(live_changes);
        let mut bare = injected();
        bare["metadata"]["annotations"] = json!({});
        for manifest in [
            with_annotation("sidecar.istio.io/inject", "false"),
            bare,
            with_annotation(PORTS, "http"),
            with_annotation("sidecar.istio.io/interceptionMode", "NONE"),
        ] {
            let actions = apply(&mut index, &manifest);
            assert_eq!(reasons(&actions), ["CaptureRetained"]);
            assert_eq!(actions.len(), 1);
            // The same Event is not published twice.
            assert_eq!(apply(&mut index, &manifest), []);
            assert_eq!(index.counts().captured, 1);
        }
    }
}

#[test]
fn changes_are_ignored_without_live_annotations() {
    let mut index = captured(LiveChanges::Ignored);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    let actions = apply(&mut index, &tighter);
    assert_eq!(reasons(&actions), ["SettingsChangeIgnored"]);
    assert_eq!(apply(&mut index, &tighter), []);
}

#[test]
fn live_changes_tighten_and_relax_only_if_allowed() {
    let mut index = captured(LiveChanges::Followed);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    let actions = apply(&mut index, &tighter);
    assert_eq!(actions[0], Action::Attach(uid()));
    assert_eq!(reasons(&actions), ["SettingsUpdated"]);
    attach(&mut index, 7);
    let relaxed = injected();
    assert_eq!(
        reasons(&apply(&mut index, &relaxed)),
        ["SettingsChangeIgnored"]
    );
    let allowed = PodContext {
        may_relax: true,
        ..context()
    };
    let actions = index.apply(pod(relaxed), &allowed);
    assert_eq!(actions[0], Action::Attach(uid()));
    let Action::Publish(notice) = &actions[1] else {
        panic!("{actions:?}");
    };
    assert!(notice.note.contains("outbound_ports: "), "{notice:?}");
}

#[test]
fn a_new_sandbox_of_the_same_pod_is_attached() {
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(index.lost(&uid(), 6), []);
    assert_eq!(index.lost(&uid(), 7), [Action::Attach(uid())]);
    attach(&mut index, 8);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_failure_is_published_once_and_retried_with_backoff() {
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    let (first, actions) = index.failed(&uid(), "no sandbox");
    assert_eq!(reasons(&actions), ["CaptureFailed"]);
    let (second, actions) = index.failed(&uid(), "no sandbox");
    assert_eq!(actions, []);
    assert!(second > first);
    for _ in 0..100 {
        index.failed(&uid(), "no sandbox");
    }
    assert_eq!(
        index.failed(&uid(), "no sandbox").0,
        Some(BACKOFF.delay(u32::MAX))
    );
    assert_eq!(index.counts().failed, 1);
    assert_eq!(reasons(&attach(&mut index, 7)), ["Captured"]);
    assert_eq!(index.counts().failed, 0);
}

#[test]
fn a_failed_settings_update_is_retried_with_backoff() {
    let mut index = captured(LiveChanges::Followed);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    assert_eq!(reasons(&apply(&mut index, &tighter)), ["SettingsUpdated"]);
    let (first, actions) = index.failed(&uid(), "no");
    assert_eq!(first, Some(BACKOFF.delay(0)));
    assert_eq!(reasons(&actions), ["CaptureFailed"]);
    assert_eq!(index.failed(&uid(), "no"), (Some(BACKOFF.delay(1)), vec![]));
    // The update is in progress: another event about the pod does not start it again.
    assert_eq!(apply(&mut index, &tighter), []);
    for _ in 0..100 {
        index.failed(&uid(), "no");
    }
    assert_eq!(index.failed(&uid(), "no").0, Some(BACKOFF.delay(u32::MAX)));
    // The pod stays captured, and the next change is applied at once.
    assert_eq!(index.counts().captured, 1);
    apply(&mut index, &injected());
    let other = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "26");
    apply(&mut index, &other);
    assert_eq!(index.failed(&uid(), "no").0, Some(BACKOFF.delay(0)));
}

#[test]
fn a_failure_does_not_override_a_newer_decision() {
    let handler = |name: &str| PodContext {
        runtime: Runtime::Handler(name.to_owned()),
        may_relax: false,
    };
    let mut declined = injected();
    declined["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    for (manifest, context) in [(declined, context()), (injected(), handler("runsc"))] {
        let mut index = index(LiveChanges::Ignored);
        apply(&mut index, &injected());
        // The decision changes during the attempt.
        index.apply(pod(manifest), &context);
        let decided = index.state(&uid()).cloned();
        assert!(!matches!(decided, Some(State::Pending { .. })));
        assert_eq!(index.failed(&uid(), "not to be captured"), (None, vec![]));
        assert_eq!(index.state(&uid()).cloned(), decided);
    }
}

#[test]
fn a_pod_that_is_deleted_during_its_attach_is_forgotten() {
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    let settings = index.plan(&uid()).unwrap().settings.clone();
    index.remove(&uid());
    let actions = index.attached(
        &uid(),
        Captured { netns: 7, settings },
        CaptureTime::BeforeStart,
    );
    assert_eq!(actions, [Action::Forget(uid(), Some(7))]);
}

#[test]
fn a_running_pod_that_was_skipped_stays_skipped() {
    let mut index = index(LiveChanges::Ignored);
    let mut manifest = injected();
    manifest["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    manifest["status"]["containerStatuses"] = json!([running("reviews")]);
    assert_eq!(apply(&mut index, &manifest), []);
    manifest["metadata"]["labels"] = json!({});
    assert_eq!(apply(&mut index, &manifest), []);
    assert_eq!(index.counts().skipped, 1);
}

#[test]
fn a_refused_pod_is_reported() {
    let mut index = index(LiveChanges::Ignored);
    let actions = index.apply(
        pod(injected()),
        &PodContext {
            runtime: Runtime::Handler("runsc".to_owned()),
            may_relax: false,
        },
    );
    assert_eq!(reasons(&actions), ["CaptureUnsupported"]);
    assert_eq!(index.counts().failed, 1);
}

#[test]
fn a_new_sandbox_keeps_the_settings_of_a_previous_agent() {
    let before = captured(LiveChanges::Ignored);
    let settings = before.plan(&uid()).unwrap().settings.clone();
    for changed in [
        with_annotation("traffic.sidecar.istio.io/excludeOutboundPorts", "80,443"),
        with_annotation("sidecar.istio.io/inject", "false"),
        with_annotation(PORTS, "http"),
    ] {
        let mut index = index(LiveChanges::Ignored);
        let settings = settings.clone();
        index.found(
            uid(),
            Captured {
                netns: 7,
                settings: settings.clone(),
            },
        );
        apply(&mut index, &changed);
        assert_eq!(index.lost(&uid(), 7), [Action::Attach(uid())]);
        assert!(index.is_due(&uid()));
        assert_eq!(index.plan(&uid()).unwrap().settings, settings);
    }
}

/// A pod with our istio-init, and these statuses of its init containers and its other containers.
fn waiting_pod(init: Value, rest: Value) -> Value {
    let mut manifest = with_istio_init("example.com:5000/interceptor:1");
    manifest["status"]["initContainerStatuses"] = init;
    manifest["status"]["containerStatuses"] = rest;
    manifest
}

fn in_state(name: &str, state: Value) -> Value {
    let mut status = running(name);
    status["state"] = state;
    status
}

#[test]
fn an_istio_init_that_ended_before_a_reboot_does_not_count() {
    let ended = |name: &str| in_state(name, json!({"terminated": {"exitCode": 0}}));
    let waits = in_state("reviews", json!({"waiting": {"reason": "PodInitializing"}}));
    let both = json!([ended("migrate"), ended("istio-init")]);
    let mut index = index(LiveChanges::Ignored);
    assert_eq!(apply(&mut index, &waiting_pod(both, json!([waits]))), []);
    assert!(!index.is_due(&uid()));
    let again = json!([ended("migrate"), running("istio-init")]);
    let actions = apply(&mut index, &waiting_pod(again, json!([waits])));
    assert_eq!(actions, [Action::Attach(uid())]);
}

#[test]
fn a_started_app_means_that_istio_init_has_run() {
    let ended = in_state("istio-init", json!({"terminated": {"exitCode": 0}}));
    let crashes = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    for app in [running("reviews"), in_state("reviews", crashes)] {
        let mut index = index(LiveChanges::Ignored);
        let actions = apply(&mut index, &waiting_pod(json!([ended]), json!([app])));
        assert_eq!(actions, [Action::Attach(uid())], "{app}");
    }
}

#[test]
fn a_new_sandbox_waits_for_its_istio_init_too() {
    let mut index = index(LiveChanges::Ignored);
    let runs = waiting_pod(json!([running("istio-init")]), json!([]));
    assert_eq!(apply(&mut index, &runs), [Action::Attach(uid())]);
    attach(&mut index, 7);
    let ended = in_state("istio-init", json!({"terminated": {"exitCode": 0}}));
    assert_eq!(
        apply(&mut index, &waiting_pod(json!([ended]), json!([]))),
        []
    );
    assert_eq!(index.lost(&uid(), 7), []);
    assert_eq!(apply(&mut index, &runs), [Action::Attach(uid())]);
}

/// kubelet reports the old containers until it has created the new ones.
#[test]
fn late_status_of_the_old_sandbox_does_not_capture_the_new_one() {
    let istio_init = |id: &str| {
        let mut status = running("istio-init");
        status["containerID"] = json!(id);
        status
    };
    let mut index = index(LiveChanges::Ignored);
    let old = waiting_pod(json!([istio_init("old")]), json!([running("reviews")]));
    assert_eq!(apply(&mut index, &old), [Action::Attach(uid())]);
    attach(&mut index, 7);
    index.new_sandbox(&uid(), 7);
    assert_eq!(index.counts().captured, 1);
    index.new_sandbox(&uid(), 8);
    assert!(!index.is_due(&uid()));
    assert_eq!(apply(&mut index, &old), []);
    assert!(!index.is_due(&uid()));
    let new = waiting_pod(json!([istio_init("new")]), json!([]));
    assert_eq!(apply(&mut index, &new), [Action::Attach(uid())]);
}

#[test]
fn a_new_sandbox_of_an_injected_pod_needs_no_istio_init() {
    let mut index = captured(LiveChanges::Ignored);
    index.new_sandbox(&uid(), 8);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_pod_with_an_unknown_runtime_is_decided_again() {
    let with = |runtime: Runtime| PodContext {
        runtime,
        may_relax: false,
    };
    let mut index = index(LiveChanges::Ignored);
    let unknown = with(Runtime::Unknown("late".to_owned()));
    index.apply(pod(injected()), &unknown);
    assert_eq!(index.of_unknown_runtimes(), [uid()]);
    let gvisor = with(Runtime::Handler("runsc".to_owned()));
    index.apply(pod(injected()), &gvisor);
    assert_eq!(index.of_unknown_runtimes(), []);
}

#[test]
fn a_pod_left_to_istio_is_captured_in_its_next_sandbox() {
    let mut index = captured(LiveChanges::Ignored);
    let why = "Istio's rules are present";
    assert_eq!(
        reasons(&index.skip_for_istio_rules(&uid(), why)),
        ["SkippedIstioRulesPresent"]
    );
    assert_eq!(index.counts().pending, 1);
    // The same notice is not published again.
    assert_eq!(index.skip_for_istio_rules(&uid(), why), []);
    assert!(index.is_due(&uid()));
    attach(&mut index, 8);
    assert!(index.is_captured_in(&uid(), 8));
    // A skipped pod stays skipped.
    let mut manifest = injected();
    manifest["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"});
    let mut index = self::index(LiveChanges::Ignored);
    apply(&mut index, &manifest);
    assert_eq!(index.skip_for_istio_rules(&uid(), why), []);
    assert!(matches!(index.state(&uid()), Some(State::Skipped(_))));
}
