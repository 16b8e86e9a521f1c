//! The agent is killed at any moment, under traffic: no connection is lost, and none uncaptured.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use interceptor_tests::{
    dialler::{Dialler, Plan},
    lab::{call, echoes},
    node::{APP, PROXIED, REMOTE},
};

use super::{expect_captured, new_node, of_mesh, until_captured};

const KILLS: u32 = 16;

/// While one pod is captured all the time, another comes and goes, which is attached and detached.
#[test]
fn an_agent_that_is_killed_at_any_moment() {
    let node = new_node();
    let begun = Instant::now();
    let mut agent = node.start_ready_agent(&["--no-cni"]).expect("an agent");
    let step = begun.elapsed() * 2 / KILLS;
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
    let place = pod.cgroup().join("dialler");
    std::fs::create_dir(&place).expect("a cgroup");
    let netns = pod.netns().expect("a netns");
    let dialler = Dialler::start(APP, netns, &place, &plan).expect("a dialler");
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
