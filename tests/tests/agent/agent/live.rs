//! Annotations change while a pod runs.

use interceptor_testkit::{
    lab::wait_until,
    node::{AgentProcess, Node, Pod, STRAIGHT},
};
use serde_json::json;

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

const LEFT_OUT: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";

/// As `kubectl annotate` does it.
fn annotate(node: &Node, pod: &mut Pod, key: &str, value: &str) {
    let annotations = &mut pod.manifest.annotations;
    annotations.insert(key.to_owned(), value.to_owned());
    node.report_running(pod).expect("reported");
}

/// Waits until an Event on the pod of this reason tells all of `what`.
fn until_told(node: &Node, agent: &AgentProcess, reason: &str, what: &[&str]) {
    let told = wait_until(reason, || {
        Ok(node.api.events_about("web").iter().any(|event| {
            let text = event["note"].as_str().unwrap_or_default();
            event["reason"] == reason && what.iter().all(|part| text.contains(part))
        }))
    });
    told.unwrap_or_else(|error| {
        let events = node.api.events_about("web");
        panic!("{error}: {what:?}: {events:#?}\n{}", agent.log())
    });
}

#[test]
fn by_default_an_annotation_that_changes_later_changes_nothing() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    annotate(&node, &mut pod, LEFT_OUT, "80");
    until_told(
        &node,
        &agent,
        "SettingsChangeIgnored",
        &["live changes are off"],
    );
    expect_captured(&pod);
    // What captures more is not followed either.
    let manifest = of_mesh(&node, "web-less").annotate(LEFT_OUT, "80");
    let mut less = node.run(manifest).expect("a pod");
    assert_eq!(dialled(&less), STRAIGHT);
    annotate(&node, &mut less, LEFT_OUT, "");
    let kept = || Ok(!node.api.events_about("web-less").is_empty());
    wait_until("an Event", kept).expect("told");
    assert_eq!(dialled(&less), STRAIGHT);
}

#[test]
fn what_captures_more_is_followed_at_once_and_told() {
    let node = new_node();
    let agent = node
        .start_ready_agent(&["--live-annotations"])
        .expect("an agent");
    let manifest = of_mesh(&node, "web").annotate(LEFT_OUT, "80,81");
    let mut pod = node.run(manifest).expect("a pod");
    assert_eq!(dialled(&pod), STRAIGHT);
    annotate(&node, &mut pod, LEFT_OUT, "81");
    until_captured(&pod, || agent.log());
    until_told(&node, &agent, "SettingsUpdated", &["80", "81"]);
    let events = node.api.events_about("web");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0]["type"], "Normal", "{events:#?}");
    let text = events[0]["note"].as_str().expect("a note");
    let [both, one] = [
        r#"[{"first":80,"last":80},{"first":81,"last":81}]"#,
        r#"[{"first":81,"last":81}]"#,
    ];
    assert!(text.ends_with(&format!(": {both} -> {one}")), "{text}");
    // The next change is told as well, and not the first once more.
    annotate(&node, &mut pod, LEFT_OUT, "");
    until_told(&node, &agent, "SettingsUpdated", &[" -> []"]);
}

#[test]
fn relaxation_requires_permission_of_the_namespace() {
    let node = new_node();
    let agent = node
        .start_ready_agent(&["--live-annotations"])
        .expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    annotate(&node, &mut pod, LEFT_OUT, "80");
    until_told(
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
    annotate(&node, &mut pod, LEFT_OUT, "80,81");
    let followed = wait_until("less", || Ok(dialled(&pod) == STRAIGHT));
    followed.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    until_told(&node, &agent, "SettingsUpdated", &["80", "81"]);
}

/// Not even where less may be captured.
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
        until_told(&node, &agent, "CaptureRetained", &["inject"]);
        expect_captured(&pod);
        pod.manifest.annotations.clear();
        node.report_running(&pod).expect("reported");
        until_told(
            &node,
            &agent,
            "CaptureRetained",
            &["sidecar.istio.io/status"],
        );
        expect_captured(&pod);
        // Nor does a new agent see it otherwise.
        agent.kill().expect("killed");
        let again = node.start_ready_agent(options).expect("an agent");
        let captured = || Ok(again.metric(r#"interceptor_pods{state="captured"}"#)? == Some(1.0));
        wait_until("taken over", captured).expect("the metric");
        expect_captured(&pod);
    }
}
