//! Faults of the agent.

use interceptor_testkit::{
    faults::{Fault, Supervisor},
    interceptor::binary,
    lab::{dial, stderr_of},
    machine::Exclusive,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, Pod, REMOTE},
};

use super::{Tally, chosen};
use crate::{alone, expect_nothing_left, interceptor};

/// A node whose agent runs under a supervisor.
struct Scene {
    supervisor: Supervisor,
    agent: AgentProcess,
    node: Node,
}

impl Scene {
    fn new(alone: &Exclusive) -> Self {
        let node = Node::alone(Driver::Systemd, alone).expect("a node");
        let supervisor = Supervisor::start().expect("a supervisor");
        let script = supervisor.script(&binary()).expect("a script");
        let mut agent = node.start_agent_of(&script, &[]).expect("an agent");
        agent.wait_until_ready().expect("ready");
        Self {
            supervisor,
            agent,
            node,
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest::of_mesh("web", &self.node.new_uid())
    }
}

/// The container runtime calls the plugin, and the plugin the agent: the pod is captured, or does not
/// start, and the next attempt to start it succeeds.
#[test]
fn a_call_of_the_agent_fails_while_a_pod_starts() {
    let alone = alone();
    let scene = Scene::new(&alone);
    let run = |fault: Option<Fault>| {
        scene.supervisor.arm(fault);
        scene.node.run(scene.manifest())
    };
    let expect_captured = |pod: Pod, what: &str| {
        let response = dial(pod.app().expect("the app"), REMOTE).expect("a dial");
        assert_eq!(response, CAPTURED, "{what}\n{}", scene.agent.log());
        scene.node.delete(pod).expect("deleted");
    };
    expect_captured(run(None).expect("a pod"), "the first pod");
    expect_captured(run(None).expect("a pod"), "the second pod");
    let faults = chosen(&scene.supervisor.recorded());
    let mut tally = Tally::default();
    for fault in faults {
        let what = fault.to_string();
        let pod = run(Some(fault));
        tally.count(scene.supervisor.has_failed(), pod.is_ok());
        match pod {
            Ok(pod) => expect_captured(pod, &what),
            Err(error) => assert!(format!("{error:#}").contains("interceptor"), "{error:#}"),
        }
        let next = run(None).unwrap_or_else(|error| panic!("{what}, then: {error:#}"));
        expect_captured(next, &what);
    }
    tally.expect_enough("a pod starts");
    drop(scene);
    // Of pods that did not start, the next agent or command removes what is left.
    stderr_of(&mut interceptor(&["detach", "--all"])).expect("detached");
    expect_nothing_left();
}
