use serde_json::{Value, json};

use super::{super::select::tests::selection, *};
use crate::agent::fixtures::{injected, pod, running, with_istio_init};

const PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";

fn index(live_changes: LiveChanges) -> Index {
    Index::new(selection(), live_changes)
}

fn around() -> PodContext {
    PodContext {
        runtime: Runtime::Default,
        may_relax: false,
    }
}

fn uid() -> PodUid {
    PodUid("6d0e".to_owned())
}

fn apply(index: &mut Index, manifest: &Value) -> Vec<Action> {
    index.apply(pod(manifest.clone()), &around())
}

/// Carries out the attach that the index asks for.
fn attach(index: &mut Index, netns: NetnsCookie) -> Vec<Action> {
    let settings = index.plan(&uid()).unwrap().settings.clone();
    index.attached(&uid(), Captured { netns, settings }, How::Expected)
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

fn told(actions: &[Action]) -> Vec<&'static str> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Publish(notice) => Some(notice.reason),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_pod_is_attached_once() {
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(apply(&mut index, &injected()), []);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_repair_is_told_once_and_an_istio_init_that_was_waited_for_is_none() {
    let repair = |index: &mut Index| {
        let settings = index.plan(&uid()).unwrap().settings.clone();
        let ran = Some(Duration::from_secs(90));
        let captured = Captured { netns: 7, settings };
        index.attached(&uid(), captured, How::Repaired { ran })
    };
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    index.failed(&uid(), "no memory");
    let actions = repair(&mut index);
    assert_eq!(told(&actions), ["Repaired"]);
    let is_told = matches!(&actions[..], [Action::Publish(notice)]
        if !notice.is_warning && notice.note.contains("uncaptured for 90 s"));
    assert!(is_told, "{actions:?}");
    let mut index = self::index(LiveChanges::Ignored);
    apply(
        &mut index,
        &with_istio_init("example.com:5000/interceptor:1"),
    );
    assert_eq!(repair(&mut index), []);
}

#[test]
fn a_pod_that_is_over_or_gone_is_forgotten() {
    let mut over = injected();
    over["status"]["phase"] = json!("Succeeded");
    let forgotten = [Action::Forget(uid(), Some(7))];
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(apply(&mut index, &over), forgotten);
    assert_eq!(apply(&mut index, &over), []);
    let mut index = captured(LiveChanges::Ignored);
    assert_eq!(index.remove(&uid()), forgotten);
}

#[test]
fn a_pod_that_a_list_does_not_name_is_only_missing() {
    let index = captured(LiveChanges::Ignored);
    assert_eq!(index.missing(&BTreeSet::from([uid()])), []);
    let name = index.pod(&uid()).map(|pod| pod.name.clone());
    let missing = [Missing { uid: uid(), name }];
    assert_eq!(index.missing(&BTreeSet::new()), missing);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn what_was_attached_before_is_not_attached_again() {
    let mut index = index(LiveChanges::Ignored);
    let before = captured(LiveChanges::Ignored);
    let settings = before.plan(&uid()).unwrap().settings.clone();
    index.found(uid(), Captured { netns: 7, settings });
    assert_eq!(apply(&mut index, &injected()), []);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn what_was_attached_for_a_pod_that_is_gone_is_forgotten() {
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
fn a_pod_of_our_istio_init_waits_for_that_container() {
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
fn nothing_that_a_running_pod_says_detaches_it() {
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
            assert_eq!(told(&actions), ["CaptureRetained"]);
            assert_eq!(actions.len(), 1);
            // Once is enough.
            assert_eq!(apply(&mut index, &manifest), []);
            assert_eq!(index.counts().captured, 1);
        }
    }
}

#[test]
fn changes_are_ignored_unless_they_are_to_be_followed() {
    let mut index = captured(LiveChanges::Ignored);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    let actions = apply(&mut index, &tighter);
    assert_eq!(told(&actions), ["SettingsChangeIgnored"]);
    assert_eq!(apply(&mut index, &tighter), []);
}

#[test]
fn followed_changes_tighten_at_once_and_loosen_where_they_may() {
    let mut index = captured(LiveChanges::Followed);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    let actions = apply(&mut index, &tighter);
    assert_eq!(actions[0], Action::Attach(uid()));
    assert_eq!(told(&actions), ["SettingsUpdated"]);
    attach(&mut index, 7);
    let looser = injected();
    assert_eq!(told(&apply(&mut index, &looser)), ["SettingsChangeIgnored"]);
    let permitted = PodContext {
        may_relax: true,
        ..around()
    };
    let actions = index.apply(pod(looser), &permitted);
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
fn a_failure_is_told_once_and_tried_again_more_and_more_seldom() {
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    let (first, actions) = index.failed(&uid(), "no sandbox");
    assert_eq!(told(&actions), ["CaptureFailed"]);
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
    assert_eq!(told(&attach(&mut index, 7)), ["Captured"]);
    assert_eq!(index.counts().failed, 0);
}

#[test]
fn a_change_of_a_captured_pod_that_fails_is_tried_more_and_more_seldom() {
    let mut index = captured(LiveChanges::Followed);
    let tighter = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "25");
    assert_eq!(told(&apply(&mut index, &tighter)), ["SettingsUpdated"]);
    let (first, actions) = index.failed(&uid(), "no");
    assert_eq!(first, Some(BACKOFF.delay(0)));
    assert_eq!(told(&actions), ["CaptureFailed"]);
    assert_eq!(index.failed(&uid(), "no"), (Some(BACKOFF.delay(1)), vec![]));
    // It is under way: another event about the pod does not begin it again.
    assert_eq!(apply(&mut index, &tighter), []);
    for _ in 0..100 {
        index.failed(&uid(), "no");
    }
    assert_eq!(index.failed(&uid(), "no").0, Some(BACKOFF.delay(u32::MAX)));
    // Captured it is all the while, and the next change is tried at once.
    assert_eq!(index.counts().captured, 1);
    apply(&mut index, &injected());
    let other = with_annotation("traffic.sidecar.istio.io/includeOutboundPorts", "26");
    apply(&mut index, &other);
    assert_eq!(index.failed(&uid(), "no").0, Some(BACKOFF.delay(0)));
}

#[test]
fn a_failure_does_not_have_a_pod_captured_that_is_not_to_be() {
    let handler = |name: &str| PodContext {
        runtime: Runtime::Handler(name.to_owned()),
        may_relax: false,
    };
    let mut declined = injected();
    declined["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    for (manifest, around) in [(declined, around()), (injected(), handler("runsc"))] {
        let mut index = index(LiveChanges::Ignored);
        apply(&mut index, &injected());
        // While it waits for its turn it is decided again.
        index.apply(pod(manifest), &around);
        let decided = index.state(&uid()).cloned();
        assert!(!matches!(decided, Some(State::Pending { .. })));
        assert_eq!(index.failed(&uid(), "not to be captured"), (None, vec![]));
        assert_eq!(index.state(&uid()).cloned(), decided);
    }
}

#[test]
fn a_pod_that_ends_while_it_is_attached_is_forgotten() {
    let mut index = index(LiveChanges::Ignored);
    apply(&mut index, &injected());
    let settings = index.plan(&uid()).unwrap().settings.clone();
    index.remove(&uid());
    let actions = index.attached(&uid(), Captured { netns: 7, settings }, How::Expected);
    assert_eq!(actions, [Action::Forget(uid(), Some(7))]);
}

#[test]
fn a_running_pod_that_was_left_alone_stays_so() {
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
fn a_refused_pod_is_told_of() {
    let mut index = index(LiveChanges::Ignored);
    let actions = index.apply(
        pod(injected()),
        &PodContext {
            runtime: Runtime::Handler("runsc".to_owned()),
            may_relax: false,
        },
    );
    assert_eq!(told(&actions), ["CaptureUnsupported"]);
    assert_eq!(index.counts().failed, 1);
}

#[test]
fn a_new_sandbox_has_the_settings_that_the_old_one_had_before_the_agent_started() {
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

/// A pod whose istio-init is ours, with these statuses of its init containers and of its others.
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
fn an_istio_init_that_ended_before_a_reboot_has_not_run_yet() {
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
fn an_istio_init_has_run_where_the_app_does() {
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
fn what_is_told_late_of_the_sandbox_before_does_not_have_the_next_captured() {
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
fn a_new_sandbox_of_an_injected_pod_is_captured_before_any_container() {
    let mut index = captured(LiveChanges::Ignored);
    index.new_sandbox(&uid(), 8);
    assert_eq!(index.counts().captured, 1);
}

#[test]
fn a_pod_is_asked_for_again_whose_runtime_is_not_known() {
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
fn a_pod_that_is_left_to_istio_is_captured_in_its_next_sandbox() {
    let mut index = captured(LiveChanges::Ignored);
    let why = "Istio's rules are there";
    assert_eq!(told(&index.left(&uid(), why)), ["SkippedIstioRulesPresent"]);
    assert_eq!(index.counts().pending, 1);
    // The same notice is not published again.
    assert_eq!(index.left(&uid(), why), []);
    assert!(index.is_due(&uid()));
    attach(&mut index, 8);
    assert!(index.is_captured_in(&uid(), 8));
    // A pod that is not to be captured is not left to Istio.
    let mut manifest = injected();
    manifest["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"});
    let mut index = self::index(LiveChanges::Ignored);
    apply(&mut index, &manifest);
    assert_eq!(index.left(&uid(), why), []);
    assert!(matches!(index.state(&uid()), Some(State::Skipped(_))));
}
