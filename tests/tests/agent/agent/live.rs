//! Annotation changes of running pods.

use interceptor_testkit::{
    lab::wait_until,
    node::{AgentProcess, Node, Pod, STRAIGHT},
};
use serde_json::json;

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

const EXCLUDED_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";

/// As `kubectl annotate` does.
fn annotate(node: &Node, pod: &mut Pod, key: &str, value: &str) {
    let annotations = &mut pod.manifest.annotations;
    annotations.insert(key.to_owned(), value.to_owned());
    node.report_running(pod).expect("reported");
}

/// Waits until an Event of this reason contains all of `what`.
fn until_published(node: &Node, agent: &AgentProcess, reason: &str, what: &[&str]) {
    let found = wait_until(reason, || {
        Ok(node.api.events_about("web").iter().any(|event| {
            let text = event["note"].as_str().unwrap_or_default();
            event["reason"] == reason && what.iter().all(|part| text.contains(part))
        }))
    });
    found.unwrap_or_else(|error| {
        let events = node.api.events_about("web");
        panic!("{error}: {what:?}: {events:#?}\n{}", agent.log())
    });
}

#[test]
fn by_default_later_annotation_changes_have_no_effect() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    annotate(&node, &mut pod, EXCLUDED_PORTS, "80");
    until_published(
        &node,
        &agent,
        "SettingsChangeIgnored",
        &["live changes are off"],
    );
    expect_captured(&pod);
    // The same for a change that captures more.
    let manifest = of_mesh(&node, "web-less").annotate(EXCLUDED_PORTS, "80");
    let mut less = node.run(manifest).expect("a pod");
    assert_eq!(dialled(&less), STRAIGHT);
    annotate(&node, &mut less, EXCLUDED_PORTS, "");
    let kept = || Ok(!node.api.events_about("web-less").is_empty());
    wait_until("an Event", kept).expect("published");
    assert_eq!(dialled(&less), STRAIGHT);
}

#[test]
fn a_change_that_captures_more_applies_and_is_published() {
    let node = new_node();
    let agent = node
        .start_ready_agent(&["--live-annotations"])
        .expect("an agent");
    let manifest = of_mesh(&node, "web").annotate(EXCLUDED_PORTS, "80,81");
    let mut pod = node.run(manifest).expect("a pod");
    assert_eq!(dialled(&pod), STRAIGHT);
    annotate(&node, &mut pod, EXCLUDED_PORTS, "81");
    until_captured(&pod, || agent.log());
    until_published(&node, &agent, "SettingsUpdated", &["80", "81"]);
    let events = node.api.events_about("web");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0]["type"], "Normal", "{events:#?}");
    let text = events[0]["note"].as_str().expect("a note");
    let [both, one] = [
        r#"[{"first":80,"last":80},{"first":81,"last":81}]"#,
        r#"[{"first":81,"last":81}]"#,
    ];
    assert!(text.ends_with(&format!(": {both} -> {one}")), "{text}");
    // The next change is published with its own text.
    annotate(&node, &mut pod, EXCLUDED_PORTS, "");
    until_published(&node, &agent, "SettingsUpdated", &[" -> []"]);
}

#[test]
fn relaxation_requires_permission_of_the_namespace() {
    let node = new_node();
    let agent = node
        .start_ready_agent(&["--live-annotations"])
        .expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    annotate(&node, &mut pod, EXCLUDED_PORTS, "80");
    until_published(
        &node,
        &agent,
        "SettingsChangeIgnored",
        &["does not allow", "80"],
    );
    expect_captured(&pod);
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "annotations": {"interceptor.dev/allow-relaxation": "true"}},
    });
    node.api.put(namespace).expect("a namespace");
    annotate(&node, &mut pod, EXCLUDED_PORTS, "80,81");
    let relaxed = wait_until("relaxed", || Ok(dialled(&pod) == STRAIGHT));
    relaxed.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    until_published(&node, &agent, "SettingsUpdated", &["80", "81"]);
}

/// Even if the namespace allows relaxation.
#[test]
fn a_running_pod_that_leaves_the_mesh_stays_captured() {
    for options in [&[][..], &["--live-annotations"]] {
        let node = new_node();
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "shop", "annotations": {"interceptor.dev/allow-relaxation": "true"}},
        });
        node.api.put(namespace).expect("a namespace");
        let mut agent = node.start_ready_agent(options).expect("an agent");
        let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
        expect_captured(&pod);
        annotate(&node, &mut pod, "sidecar.istio.io/inject", "false");
        until_published(&node, &agent, "CaptureRetained", &["inject"]);
        expect_captured(&pod);
        pod.manifest.annotations.clear();
        node.report_running(&pod).expect("reported");
        until_published(
            &node,
            &agent,
            "CaptureRetained",
            &["sidecar.istio.io/status"],
        );
        expect_captured(&pod);
        // The same with a new agent.
        agent.kill().expect("killed");
        let again = node.start_ready_agent(options).expect("an agent");
        let captured = || Ok(again.metric(r#"interceptor_pods{state="captured"}"#)? == Some(1.0));
        wait_until("adopted", captured).expect("the metric");
        expect_captured(&pod);
    }
}
