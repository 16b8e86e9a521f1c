//! Upgrades between agents of other builds, and `interceptor uninstall --node`: both affect every
//! pod of the machine.

use std::{fs, path::Path, thread, time::Instant};

use interceptor_testkit::{
    actor::protocol::Handle,
    dialler::{Dialler, Plan},
    lab::{call, dial, echoes, stderr_of, wait_until},
    machine::Exclusive,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, PROXIED, Pod, REMOTE, STRAIGHT},
    users::{APP, ROOT},
};

use crate::{
    alone, expect_nothing_left, interceptor,
    upgrade::{builds, pinned},
};

/// The number of upgrades in one test.
const CHANGES: usize = 4;
/// The number of kills of the upgrading agent.
const KILLS: u32 = 12;

/// A node with two pods that its agent has captured: one existed before, one was captured by the
/// plugin.
struct Scene {
    agent: AgentProcess,
    pods: Vec<Pod>,
    node: Node,
}

impl Scene {
    fn new(alone: &Exclusive) -> Self {
        let node = Node::alone(Driver::Systemd, alone).expect("a node");
        let run = |name| {
            let manifest = Manifest::of_mesh(name, &node.new_uid());
            node.run(manifest).expect("a pod")
        };
        let there = run("there");
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let pods = vec![there, run("by-cni")];
        let scene = Self { agent, pods, node };
        scene.until_upgraded();
        scene
    }

    /// Kills the agent and starts one of `build`.
    fn replace(&mut self, build: &Path) {
        self.agent.kill().expect("killed");
        self.agent = self.node.start_agent_of(build, &[]).expect("an agent");
    }

    fn until_ready(&mut self) {
        self.agent.wait_until_ready().expect("ready");
        self.until_upgraded();
    }

    #[track_caller]
    fn until_upgraded(&self) {
        let captured = || self.agent.metric(r#"interceptor_pods{state="captured"}"#);
        let all = wait_until("all pods", || Ok(captured()? == Some(2.0)));
        all.unwrap_or_else(|error| panic!("{error}\n{}", self.agent.log()));
    }

    fn open(&self) -> Vec<Handle> {
        let opened = self.pods.iter().map(|pod| {
            let (socket, response) = call(pod.app().expect("the app"), REMOTE).expect("a call");
            assert_eq!(response, CAPTURED);
            socket
        });
        opened.collect()
    }

    #[track_caller]
    fn expect_captured(&self, open: &[Handle]) {
        for (pod, socket) in self.pods.iter().zip(open) {
            let app = pod.app().expect("the app");
            assert_eq!(dial(app, REMOTE).expect("a call"), CAPTURED);
            assert!(echoes(app, *socket).expect("an echo"));
        }
    }

    /// Each app, and an outside client that dials the first.
    fn diallers(&self) -> Vec<(&'static str, Dialler)> {
        let outwards = self.pods.iter().map(|pod| {
            let place = pod.cgroup().join("dialler");
            fs::create_dir_all(&place).expect("a cgroup");
            let plan = Plan::endless(REMOTE).expect("a plan");
            let netns = pod.netns().expect("a netns");
            let dialler = Dialler::start(APP, netns, &place, &plan);
            (PROXIED, dialler.expect("a dialler"))
        });
        let mut diallers: Vec<_> = outwards.collect();
        let address = self.pods[0].addresses().expect("addresses")[0];
        let plan = Plan::endless(&format!("{address}:8080")).expect("a plan");
        let place = self.node.cgroup.child("system.slice/dialler");
        let place = place.expect("a cgroup");
        let inwards = Dialler::start(ROOT, &self.node.host, &place, &plan);
        diallers.push(("proxy:15006", inwards.expect("a dialler")));
        diallers
    }
}

#[track_caller]
fn expect_all_captured(diallers: Vec<(&'static str, Dialler)>) {
    for (proxy, dialler) in diallers {
        let outcomes = dialler.stop().expect("outcomes");
        assert_eq!(outcomes.names(), [proxy], "{outcomes:#?}");
        assert!(outcomes.dials() > 100, "{outcomes:#?}");
    }
}

#[test]
fn an_agent_of_another_build_replaces_a_killed_one() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    let open = scene.open();
    let diallers = scene.diallers();
    let [own, other] = builds();
    for turn in 0..CHANGES {
        let build = if turn % 2 == 0 { &other } else { &own };
        scene.replace(build);
        scene.until_ready();
        scene.expect_captured(&open);
        assert_eq!(pinned(), [1, 1], "{}", scene.agent.log());
        // The container runtime calls its plugin now.
        let manifest = Manifest::of_mesh("new", &scene.node.new_uid());
        let new = scene.node.run(manifest).expect("a pod");
        let response = dial(new.app().expect("the app"), REMOTE);
        assert_eq!(response.expect("a call"), CAPTURED);
        scene.node.delete(new).expect("deleted");
    }
    expect_all_captured(diallers);
    drop(scene);
    expect_nothing_left();
}

/// Killed at any point until it is ready; the next agent of either build recovers.
#[test]
fn an_agent_killed_during_an_upgrade() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    let open = scene.open();
    let [own, other] = builds();
    let started = Instant::now();
    scene.replace(&other);
    scene.until_ready();
    let step = started.elapsed() * 3 / 2 / KILLS;
    let mut builds = [&other, &own];
    let mut in_between = 0;
    // A dialler has a time limit.
    for half in 0..2 {
        let diallers = scene.diallers();
        for kill in (half..KILLS).step_by(2) {
            let [before, next] = builds;
            scene.replace(next);
            thread::sleep(step * kill);
            scene.agent.kill().expect("killed");
            in_between += u32::from(pinned() != [1, 1]);
            scene.expect_captured(&open);
            // Forward, or back.
            let after = if kill % 4 < 2 { next } else { before };
            scene.replace(after);
            scene.until_ready();
            scene.expect_captured(&open);
            assert_eq!(pinned(), [1, 1], "kill {kill}\n{}", scene.agent.log());
            if after == next {
                builds.reverse();
            }
        }
        expect_all_captured(diallers);
    }
    assert!(in_between >= KILLS / 10, "{in_between} of {KILLS}");
    drop(scene);
    expect_nothing_left();
}

#[test]
fn uninstalling_leaves_running_pods_captured_by_default() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    // The last agent was not of the build that uninstalls.
    scene.replace(&builds()[1]);
    scene.until_ready();
    scene.agent.kill().expect("killed");
    let uninstall = |scene: &Scene, more: &[&str]| {
        let mut command = interceptor(&["uninstall", "--node"]);
        let runtime = &scene.node.runtime;
        command.arg("--cni-conf-dir").arg(&runtime.conf);
        command.arg("--cni-bin-dir").arg(&runtime.bin).args(more);
        stderr_of(&mut command).expect("uninstalled")
    };
    let responses = |scene: &Scene| -> Vec<String> {
        let apps = scene.pods.iter().map(|pod| pod.app().expect("the app"));
        apps.map(|app| dial(app, REMOTE).expect("a call")).collect()
    };
    uninstall(&scene, &[]);
    // It stays for them, and passes others.
    let network = scene.node.runtime.network().expect("a network");
    assert_eq!(network["plugins"][1]["uninstalled"], true, "{network}");
    assert_eq!(responses(&scene), [CAPTURED; 2]);
    for pod in &mut scene.pods {
        pod.start_proxy(&scene.node).expect("another proxy");
    }
    assert_eq!(responses(&scene), [CAPTURED; 2]);
    let printed = uninstall(&scene, &["--now"]);
    assert_eq!(responses(&scene), [STRAIGHT; 2], "{printed}");
    for pod in &scene.pods {
        let uid = &pod.manifest.uid;
        assert!(printed.contains(&format!("pod {uid}")), "{uid}: {printed}");
        let to = format!("{}:8080", pod.addresses().expect("addresses")[0]);
        assert_eq!(dial(&scene.node.client, &to).expect("a call"), "app:8080");
    }
    expect_nothing_left();
    assert_eq!(scene.node.runtime.plugins().expect("plugins"), ["ptp"]);
    // A repeated call changes nothing.
    uninstall(&scene, &["--now"]);
    // New pods are not captured.
    let manifest = Manifest::of_mesh("new", &scene.node.new_uid());
    let new = scene.node.run(manifest).expect("a pod");
    let response = dial(new.app().expect("the app"), REMOTE);
    assert_eq!(response.expect("a call"), STRAIGHT);
}
