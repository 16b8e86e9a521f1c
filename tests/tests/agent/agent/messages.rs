//! Logs and Events name the value, the pod or the server, and what operators can do.

use interceptor_testkit::{
    command::{bounded, run},
    interceptor,
    lab::wait_until,
    netns::Netns,
    node::{AgentPlacement, AgentProcess, Node},
};
use serde_json::json;

use super::{new_node, of_mesh};

#[track_caller]
fn wait_for_line(agent: &AgentProcess, words: &[&str]) {
    let says = |line: &str| words.iter().all(|word| line.contains(word));
    let found = wait_until("a line of the log", || Ok(agent.log().lines().any(says)));
    found.unwrap_or_else(|error| panic!("{error}: {words:?}\n{}", agent.log()));
}

/// The text of the pod's Event.
fn event(node: &Node, agent: &AgentProcess, pod: &str) -> String {
    let found = wait_until("an Event", || Ok(!node.api.events_about(pod).is_empty()));
    found.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let events = node.api.events_about(pod);
    events[0]["note"].as_str().expect("a note").to_owned()
}

/// Expects no Rust notation.
#[track_caller]
fn expect_plain(text: &str) {
    for word in ["Some(", "None", "Status {", "Error("] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[test]
fn an_invalid_annotation_is_named_with_the_allowed_values() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let ports = "traffic.sidecar.istio.io/includeInboundPorts";
    let manifest = of_mesh(&node, "web").annotate(ports, "80x");
    let mut pod = node.schedule(manifest).expect("a pod");
    let refused = pod.start_sandbox(&node).expect_err("it cannot be captured");
    let refused = format!("{refused:#}");
    let event = event(&node, &agent, "web");
    for text in [refused, event, agent.log()] {
        let sentence = format!(
            "annotation {ports} \"80x\": \"80x\" is not a port: give '*', or port numbers from 0 to \
             65535, without leading zeros, separated by commas; annotations do not accept ranges"
        );
        // The log and the plugin's JSON have the quotes escaped.
        assert!(text.replace('\\', "").contains(&sentence), "{text}");
        expect_plain(&text);
    }
}

#[test]
fn an_unsupported_runtime_is_named_with_the_value_to_change() {
    let node = new_node();
    let class = json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "gvisor"},
        "handler": "runsc",
    });
    node.api.put(class).expect("a class");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let manifest = of_mesh(&node, "web").with_runtime_class("gvisor");
    let mut pod = node.schedule(manifest).expect("a pod");
    pod.start_sandbox(&node).expect_err("it cannot be captured");
    let event = event(&node, &agent, "web");
    for word in ["\"runsc\"", "runtimeClasses.allow"] {
        assert!(event.contains(word), "{word}: {event}");
    }
    expect_plain(&event);
}

#[test]
fn an_unreachable_api_server_is_named_with_the_cause() {
    let node = new_node();
    // No server listens there.
    let elsewhere = Netns::new("elsewhere", None).expect("a network namespace");
    let surroundings = AgentPlacement {
        namespaces: vec![format!("--net={}", elsewhere.path().display())],
        cgroup_root: node.cgroup.path().to_owned(),
    };
    let agent = node.start_agent_in(&surroundings, &interceptor::binary(), &["--no-cni"]);
    let agent = agent.expect("an agent");
    let unreachable = format!("cannot reach the API server at {}", node.api.url());
    let words = [
        &unreachable,
        "pod watch failed",
        "tcp connect error",
        "(os error ",
    ];
    wait_for_line(&agent, &words);
    expect_plain(&agent.log());
}

#[test]
fn a_refused_request_is_logged_with_its_status() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let binding = ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding");
    let removed = node.api.remove(binding.0, binding.1, "", "interceptor");
    assert!(removed.expect("an answer"), "the agent has a {}", binding.1);
    node.api.disconnect();
    node.api.expire();
    wait_for_line(
        &agent,
        &["pod watch failed", "returned status 403 Forbidden"],
    );
    expect_plain(&agent.log());
}

#[test]
fn a_removed_sandbox_is_logged_with_its_pod() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let id = pod.sandbox_id().expect("an ID").to_owned();
    pod.stop_sandbox(&node).expect("stopped");
    wait_for_line(
        &agent,
        &["CNI DEL", "pod=shop/web", &format!("sandbox=\"{id}\"")],
    );
}

#[test]
fn other_rules_with_another_effect_are_logged_with_the_pod() {
    let node = new_node();
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let netns = pod.netns().expect("a network namespace");
    let policy = || run(bounded("iptables").args(["-w", "-P", "INPUT", "DROP"]), "");
    netns.enter(policy).expect("a policy");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let words = ["WARN", "policy drop of ip filter INPUT", "pod=shop/web"];
    wait_for_line(&agent, &words);
}
