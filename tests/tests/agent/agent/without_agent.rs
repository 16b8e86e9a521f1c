//! Without the agent captured pods stay captured, and the next agent adopts them.

use interceptor_testkit::{
    bpf::pins,
    lab::{call, cookie, dial, echoes, wait_until},
    node::{NAMESPACE, REMOTE},
};

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

#[test]
fn a_proxy_that_is_replaced_without_an_agent_is_served() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    agent.kill().expect("killed");
    expect_captured(&pod);
    pod.start_proxy(&node).expect("another proxy");
    expect_captured(&pod);
    pod.start_app(&node).expect("another app");
    expect_captured(&pod);
}

#[test]
fn a_new_agent_adopts_captured_pods_unchanged() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let app = pod.app().expect("the app");
    let (socket, answer) = call(app, REMOTE).expect("a call");
    agent.kill().expect("killed");
    let again = node.start_ready_agent(&[]).expect("an agent");
    let captured = || again.metric(r#"interceptor_pods{state="captured"}"#);
    let counted = wait_until("adopted", || Ok(captured()? == Some(1.0)));
    counted.unwrap_or_else(|error| panic!("{error}\n{}", again.log()));
    assert!(
        again.log().contains("adopted existing captures"),
        "{}",
        again.log()
    );
    assert!(echoes(app, socket).expect("an echo"), "{answer}");
    expect_captured(&pod);
}

/// Its pins are deleted by the next agent.
#[test]
fn a_pod_that_was_deleted_without_an_agent_is_cleaned_up() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let stays = node.run(of_mesh(&node, "stays")).expect("a pod");
    expect_captured(&pod);
    let cookie = cookie(pod.netns().expect("a netns")).expect("a cookie");
    let pins = pins::of_netns(cookie);
    assert!(pins.exists(), "{}", pins.display());
    agent.kill().expect("killed");
    pod.vanish().expect("deleted");
    let removed = node.api.remove("v1", "Pod", "shop", "web");
    assert!(removed.expect("a kind"));
    let again = node.start_ready_agent(&[]).expect("an agent");
    let cleaned = wait_until("the pins are deleted", || Ok(!pins.exists()));
    cleaned.unwrap_or_else(|error| panic!("{error}\n{}", again.log()));
    expect_captured(&stays);
}

/// The list contains the plugin, no pins exist and no agent runs: the agent's own pod and system pods
/// start, others wait for the agent, and none starts uncaptured.
#[test]
fn after_a_reboot_pods_wait_for_the_agent() {
    let node = new_node();
    let mut agent = node
        .start_ready_agent(&["--cni-wait-seconds", "1"])
        .expect("an agent");
    agent.kill().expect("killed");
    let systems = of_mesh(&node, "systems").in_namespace("kube-system");
    node.run(systems).expect("it starts without the agent");
    let own = of_mesh(&node, "interceptor-fghij").in_namespace(NAMESPACE);
    node.run(own).expect("it starts without the agent");
    let mut pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
    let refused = pod.start_sandbox(&node).expect_err("no agent");
    let reason = format!("{refused:#}");
    assert!(reason.contains("interceptor-cni ADD"), "{reason}");
    assert!(reason.contains("agent"), "{reason}");
    let _agent = node.start_ready_agent(&[]).expect("an agent");
    pod.start_sandbox(&node).expect("with the agent it starts");
    pod.start_app(&node).expect("the app");
    assert_eq!(dialled(&pod), "ECONNREFUSED");
}

#[test]
fn with_failure_policy_ignore_pods_are_captured_later() {
    let node = new_node();
    let options = ["--cni-wait-seconds", "1", "--failure-policy", "Ignore"];
    let mut agent = node.start_ready_agent(&options).expect("an agent");
    agent.kill().expect("killed");
    let pod = node.run(of_mesh(&node, "web")).expect("it starts");
    assert_eq!(
        dial(pod.app().expect("the app"), REMOTE).expect("a call"),
        "remote:80"
    );
    let agent = node.start_ready_agent(&options).expect("an agent");
    until_captured(&pod, || agent.log());
}
