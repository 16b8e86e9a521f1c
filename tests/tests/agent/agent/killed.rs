//! The agent is killed at any moment under traffic: every connection is captured, and none is lost.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use interceptor_testkit::{
    dialler::{Dialler, Plan},
    lab::{call, echoes},
    node::{AgentProcess, Node, PROXIED, Pod, REMOTE},
    users::APP,
};

use super::{dialled, expect_captured, new_node, of_mesh, until_captured};

const KILLS: u32 = 16;

/// A short timeout of the plugin.
const SHORT_TIMEOUT: &[&str] = &["--cni-wait-seconds", "2"];

/// One pod is captured all the time. Another one is attached and detached repeatedly.
#[test]
fn an_agent_killed_at_any_moment_loses_no_connection() {
    let node = new_node();
    let start = Instant::now();
    let mut agent = node.start_ready_agent(&["--no-cni"]).expect("an agent");
    let step = start.elapsed() * 2 / KILLS;
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    until_captured(&pod, || agent.log());
    agent.kill().expect("killed");
    let app = pod.app().expect("the app");
    let (socket, _) = call(app, REMOTE).expect("a call");
    let first: SocketAddr = REMOTE.parse().expect("an address");
    let plan = Plan {
        first,
        destinations: 1,
        rounds: u32::MAX,
    };
    let cgroup = pod.cgroup().join("dialler");
    fs::create_dir(&cgroup).expect("a cgroup");
    let netns = pod.netns().expect("a netns");
    let dialler = Dialler::start(APP, netns, &cgroup, &plan).expect("a dialler");
    for kill in 0..KILLS {
        let other = node.run(of_mesh(&node, "other")).expect("a pod");
        let mut agent = node.start_agent(&["--no-cni"]).expect("an agent");
        thread::sleep(step * kill);
        node.delete(other).expect("deleted");
        thread::sleep(Duration::from_millis(u64::from(kill % 4) * 5));
        agent.kill().expect("killed");
        assert!(echoes(app, socket).expect("an echo"), "kill {kill}");
    }
    let outcomes = dialler.stop().expect("outcomes");
    assert_eq!(outcomes.names(), [PROXIED], "{outcomes:?}");
    assert!(outcomes.dials() > KILLS, "{outcomes:?}");
    let agent = node.start_ready_agent(&["--no-cni"]).expect("an agent");
    expect_captured(&pod);
    let another = node.run(of_mesh(&node, "another")).expect("a pod");
    until_captured(&another, || agent.log());
}

/// Starts the pod's sandbox, and kills the agent `after` some time.
fn start_and_kill(
    node: &Node,
    pod: &mut Pod,
    agent: &mut AgentProcess,
    after: Duration,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            thread::sleep(after);
            agent.kill()
        });
        let started = pod.start_sandbox(node);
        killer.join().expect("no panic").expect("killed");
        started
    })
}

/// Starts pods while their agents are killed. Returns the pods that were refused; the others must be
/// captured.
///
/// The first agent is killed `after` this time, the next ones later after a refusal, or else earlier:
/// so most kills are close to the moment of the capture.
fn start_and_kill_all(node: &Node, mut after: Duration) -> Vec<Pod> {
    let step = after / 8;
    let mut refused = Vec::new();
    for kill in 0..KILLS {
        let mut agent = node.start_ready_agent(SHORT_TIMEOUT).expect("an agent");
        let name = format!("killed-{kill}");
        let mut pod = node.schedule(of_mesh(node, &name)).expect("a pod");
        if let Err(error) = start_and_kill(node, &mut pod, &mut agent, after) {
            let reason = format!("{error:#}");
            assert!(reason.contains("interceptor-cni ADD"), "{reason}");
            refused.push(pod);
            after += step;
        } else {
            pod.start_app(node).expect("the app");
            assert_eq!(dialled(&pod), "ECONNREFUSED", "{}", agent.log());
            pod.start_proxy(node).expect("the proxy");
            expect_captured(&pod);
            after = after.saturating_sub(step);
        }
    }
    refused
}

/// The plugin either succeeds and the pod is captured, or fails and the next attempt captures the pod.
#[test]
fn a_pod_is_captured_or_fails_if_its_agent_is_killed() {
    let node = new_node();
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let _stays = node.run(of_mesh(&node, "stays")).expect("a pod");
    agent.kill().expect("killed");
    let mut agent = node.start_ready_agent(&[]).expect("an agent");
    let mut first = node.schedule(of_mesh(&node, "first")).expect("a pod");
    let start = Instant::now();
    first.start_sandbox(&node).expect("a sandbox");
    let took = start.elapsed();
    agent.kill().expect("killed");
    let mut refused = start_and_kill_all(&node, took);
    let count = u32::try_from(refused.len()).expect("a few");
    assert!((1..KILLS).contains(&count), "{count} of {KILLS} refused");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    for pod in &mut refused {
        let started = pod.start_sandbox(&node);
        started.unwrap_or_else(|error| panic!("{error:#}\n{}", agent.log()));
        pod.start_app(&node).expect("the app");
        assert_eq!(dialled(pod), "ECONNREFUSED", "{}", agent.log());
    }
}
