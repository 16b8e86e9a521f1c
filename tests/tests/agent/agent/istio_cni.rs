//! istio-cni is on the node as well: the agent steps aside for it, and takes over when it is gone.

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

/// Long enough for a pod to be captured that ought not to be.
const A_WHILE: Duration = Duration::from_millis(500);

/// Runs a pod that istio-cni programs before its first container starts.
fn run_programmed(node: &Node, name: &str) -> Pod {
    let mut pod = node.schedule(of_mesh(node, name)).expect("a pod");
    pod.start_sandbox(node).expect("a sandbox");
    program(pod.netns().expect("a netns")).expect("rules");
    pod.start_proxy(node).expect("the proxy");
    pod.start_app(node).expect("the app");
    node.report_running(&pod).expect("reported");
    pod
}

fn program(netns: &Netns) -> anyhow::Result<()> {
    rules::apply(netns, &Settings::default(), false)
}

/// Whether we have captured it: under Istio's rules its traffic goes the same way.
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

/// Ready it is not, and says why.
fn until_aside(agent: &AgentProcess) {
    let names_it = || {
        agent.get("/readyz").is_ok_and(|(status, why)| {
            status == 503 && why.contains("istio-cni") && !why.contains("initial pod list")
        })
    };
    until(agent, "the agent steps aside", names_it);
}

fn until_told(node: &Node, agent: &AgentProcess, pod: &str) {
    let is_it = |event: &serde_json::Value| event["reason"] == "SkippedIstioRulesPresent";
    let told = || node.api.events_about(pod).iter().any(is_it);
    until(agent, "an Event", told);
}

#[test]
fn pods_are_captured_once_istio_cni_is_removed() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    node.runtime.add_istio_cni().expect("istio-cni");
    let mut programmed = run_programmed(&node, "programmed");
    let mut agent = node.start_agent(&[]).expect("an agent");
    until_aside(&agent);
    let later = node.run(of_mesh(&node, "later")).expect("a pod");
    until_counted(&agent, "pending", 3.0);
    thread::sleep(A_WHILE);
    for pod in [&there, &programmed, &later] {
        let (name, log) = (&pod.manifest.name, agent.log());
        assert!(!is_attached(pod), "{name}:\n{log}");
    }
    assert_eq!(dialled(&there), STRAIGHT);
    assert!(agent.log().contains("left to istio-cni"), "{}", agent.log());
    assert_eq!(
        node.runtime.plugins().expect("plugins"),
        ["ptp", "istio-cni"]
    );

    node.runtime.remove_istio_cni().expect("gone");
    agent.wait_until_ready().expect("ready");
    for pod in [&there, &later] {
        until_captured(pod, || agent.log());
        assert!(is_attached(pod));
    }
    // It runs on under Istio's rules, and is captured once they have gone with the sandbox.
    until_told(&node, &agent, "programmed");
    thread::sleep(A_WHILE);
    assert!(!is_attached(&programmed), "{}", agent.log());
    until_counted(&agent, "pending", 1.0);
    expect_captured(&programmed);
    programmed.stop_sandbox(&node).expect("stopped");
    programmed.start_sandbox(&node).expect("a sandbox");
    assert!(is_attached(&programmed), "{}", agent.log());
    programmed.start_app(&node).expect("the app");
    assert_eq!(dialled(&programmed), "ECONNREFUSED");
    until_counted(&agent, "captured", 3.0);
}

#[test]
fn what_is_captured_stays_captured_when_istio_cni_comes() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    expect_captured(&pod);
    node.runtime.add_istio_cni().expect("istio-cni");
    until_aside(&agent);
    agent.kill().expect("killed");
    let again = node.start_agent(&[]).expect("an agent");
    until_aside(&again);
    until_counted(&again, "captured", 1.0);
    assert!(is_attached(&pod), "{}", again.log());
    expect_captured(&pod);
}

/// A runtime has read the list before we took ourselves out of it: istio-cni is called, then we.
#[test]
fn a_pod_that_istio_cni_has_just_programmed_starts_as_it_is() {
    let node = new_node();
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let mut pod = node.schedule(of_mesh(&node, "web")).expect("a pod");
    pod.start_sandbox_after(&node, program).expect("a sandbox");
    assert!(!is_attached(&pod), "{}", agent.log());
    until_told(&node, &agent, "web");
    let skipped = r#"interceptor_cni_requests_total{verb="add",result="skipped"}"#;
    assert_eq!(agent.metric(skipped).expect("metrics"), Some(1.0));
    pod.start_proxy(&node).expect("the proxy");
    pod.start_app(&node).expect("the app");
    expect_captured(&pod);
    thread::sleep(A_WHILE);
    assert!(!is_attached(&pod), "{}", agent.log());
}

#[test]
fn by_setting_pods_are_captured_beside_istio_cni() {
    let node = new_node();
    node.runtime.add_istio_cni().expect("istio-cni");
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let programmed = run_programmed(&node, "programmed");
    let agent = node.start_ready_agent(&["--allow-istio-cni"]);
    let agent = agent.expect("an agent");
    until_counted(&agent, "captured", 2.0);
    assert!(is_attached(&there) && is_attached(&programmed));
}

/// Which network a pod gets is said by the pod: new ones are captured, running ones may be Istio's.
#[test]
fn beside_istio_cni_under_multus_running_pods_are_left_to_it() {
    let node = new_node();
    let there = node.run(of_mesh(&node, "there")).expect("a pod");
    let istios = node.runtime.conf.join("YYY-istio-cni.conf");
    let text = r#"{"cniVersion": "0.3.1", "name": "istio-cni", "type": "istio-cni"}"#;
    fs::write(&istios, text).expect("written");
    let agent = node.start_ready_agent(&["--chained", "false"]);
    let agent = agent.expect("an agent");
    until_counted(&agent, "pending", 1.0);
    thread::sleep(A_WHILE);
    assert!(!is_attached(&there), "{}", agent.log());
    fs::remove_file(&istios).expect("gone");
    until_captured(&there, || agent.log());
}
