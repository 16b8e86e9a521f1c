//! With istio-cni on the node, the agent leaves pods to istio-cni until istio-cni is removed.

use std::{fs, thread, time::Duration};

use interceptor_testkit::{
    bpf::pins,
    lab::{cookie, wait_until},
    netns::Netns,
    node::{AgentProcess, Node, Pod, STRAIGHT},
    rules,
    settings::Settings,
};

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

/// Long enough for an incorrect capture to happen.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Runs a pod that istio-cni redirects before its first container starts.
fn run_redirected(node: &Node, name: &str) -> Pod {
    let mut pod = node.schedule(of_mesh(node, name)).expect("a pod");
    pod.start_sandbox(node).expect("a sandbox");
    redirect(pod.netns().expect("a netns")).expect("rules");
    pod.start_proxy(node).expect("the proxy");
    pod.start_app(node).expect("the app");
    node.report_running(&pod).expect("reported");
    pod
}

fn redirect(netns: &Netns) -> anyhow::Result<()> {
    rules::apply(netns, &Settings::default(), false)
}

/// Whether the pod is attached. (With Istio's rules its traffic reaches the same listeners.)
fn is_attached(pod: &Pod) -> bool {
    let cookie = cookie(pod.netns().expect("a netns")).expect("a cookie");
    pins::of_netns(cookie).exists()
}

fn until(agent: &AgentProcess, what: &str, is: impl Fn() -> bool) {
    let done = wait_until(what, || Ok(is()));
    done.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
}

fn until_counted(agent: &AgentProcess, state: &str, count: f64) {
    let name = format!("interceptor_pods{{state=\"{state}\"}}");
    let counted = || agent.metric(&name).ok().flatten() == Some(count);
    until(agent, &name, counted);
}

/// Waits until the agent is not ready because of istio-cni.
fn until_disabled(agent: &AgentProcess) {
    let names_it = || {
        agent.get("/readyz").is_ok_and(|(status, why)| {
            status == 503 && why.contains("istio-cni") && !why.contains("initial pod list")
        })
    };
    until(agent, "the agent is disabled", names_it);
}

fn until_published(node: &Node, agent: &AgentProcess, pod: &str) {
    let is_skipped = |event: &serde_json::Value| event["reason"] == "SkippedIstioRulesPresent";
    let published = || node.api.events_about(pod).iter().any(is_skipped);
    until(agent, "an Event", published);
}

#[test]
fn pods_are_captured_once_istio_cni_is_removed() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    node.runtime.add_istio_cni().expect("istio-cni");
    let mut redirected = run_redirected(&node, "redirected");
    let mut agent = node.start_agent(&[]).expect("an agent");
    until_disabled(&agent);
    let later = node.run(of_mesh(&node, "later")).expect("a pod");
    until_counted(&agent, "pending", 3.0);
    thread::sleep(SETTLE_TIME);
    for pod in [&there, &redirected, &later] {
        let (name, log) = (&pod.manifest.name, agent.log());
        assert!(!is_attached(pod), "{name}:\n{log}");
    }
    assert_eq!(dialled(&there), STRAIGHT);
    assert!(agent.log().contains("left to istio-cni"), "{}", agent.log());
    assert_eq!(
        node.runtime.plugins().expect("plugins"),
        ["ptp", "istio-cni"]
    );

    node.runtime.remove_istio_cni().expect("deleted");
    agent.wait_until_ready().expect("ready");
    for pod in [&there, &later] {
        until_captured(pod, || agent.log());
        assert!(is_attached(pod));
    }
    // This pod keeps Istio's rules, and is captured in its next sandbox.
    until_published(&node, &agent, "redirected");
    thread::sleep(SETTLE_TIME);
    assert!(!is_attached(&redirected), "{}", agent.log());
    until_counted(&agent, "pending", 1.0);
    expect_captured(&redirected);
    redirected.stop_sandbox(&node).expect("stopped");
    redirected.start_sandbox(&node).expect("a sandbox");
    assert!(is_attached(&redirected), "{}", agent.log());
    redirected.start_app(&node).expect("the app");
    assert_eq!(dialled(&redirected), "ECONNREFUSED");
    until_counted(&agent, "captured", 3.0);
}

#[test]
fn captured_pods_stay_captured_when_istio_cni_is_added() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    node.runtime.add_istio_cni().expect("istio-cni");
    until_disabled(&agent);
    agent.kill().expect("killed");
    let again = node.start_agent(&[]).expect("an agent");
    until_disabled(&again);
    until_counted(&again, "captured", 1.0);
    assert!(is_attached(&pod), "{}", again.log());
    expect_captured(&pod);
}

/// The runtime has read the list before our plugin was removed from it: it calls istio-cni, then our
/// plugin.
#[test]
fn a_pod_that_istio_cni_has_just_redirected_starts_uncaptured() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
    pod.start_sandbox_after(&node, redirect).expect("a sandbox");
    assert!(!is_attached(&pod), "{}", agent.log());
    until_published(&node, &agent, "web");
    let skipped = r#"interceptor_cni_requests_total{verb="add",result="skipped"}"#;
    assert_eq!(agent.metric(skipped).expect("metrics"), Some(1.0));
    pod.start_proxy(&node).expect("the proxy");
    pod.start_app(&node).expect("the app");
    expect_captured(&pod);
    thread::sleep(SETTLE_TIME);
    assert!(!is_attached(&pod), "{}", agent.log());
}

#[test]
fn with_allow_istio_cni_pods_are_captured() {
    let node = new_node();
    node.runtime.add_istio_cni().expect("istio-cni");
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let redirected = run_redirected(&node, "redirected");
    let agent = node.start_ready_agent(&["--allow-istio-cni"]);
    let agent = agent.expect("an agent");
    until_counted(&agent, "captured", 2.0);
    assert!(is_attached(&there) && is_attached(&redirected));
}

/// The pod selects its networks: new pods are captured, running pods may use istio-cni.
#[test]
fn with_istio_cni_under_multus_running_pods_are_left_to_it() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let istios = node.runtime.conf.join("YYY-istio-cni.conf");
    let text = r#"{"cniVersion": "0.3.1", "name": "istio-cni", "type": "istio-cni"}"#;
    fs::write(&istios, text).expect("written");
    let agent = node.start_ready_agent(&["--chained", "false"]);
    let agent = agent.expect("an agent");
    until_counted(&agent, "pending", 1.0);
    thread::sleep(SETTLE_TIME);
    assert!(!is_attached(&there), "{}", agent.log());
    fs::remove_file(&istios).expect("deleted");
    until_captured(&there, || agent.log());
}
