//! Any number of observers see the flows that the node agent reads, with the names of the pods.

use std::{
    process::{Command, Output},
    time::Instant,
};

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    lab::dial,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, Pod, REMOTE},
};
use serde_json::{Value, json};

use crate::{
    alone,
    observe::{EVENT_TIMEOUT, Observer, QUIET},
};

struct Scene {
    agent: AgentProcess,
    pods: [Pod; 2],
    node: Node,
}

impl Scene {
    fn new(alone: &interceptor_testkit::machine::Exclusive) -> Self {
        let node = Node::alone(Driver::Systemd, alone).expect("a node");
        let agent = node.start_ready_agent(&[]).expect("an agent");
        let pods = ["web", "db"].map(|name| {
            let manifest = Manifest::of_mesh(name, &node.new_uid());
            node.run(manifest).expect("a pod")
        });
        Self { agent, pods, node }
    }

    fn command(&self, mut command: Command, options: &[&str]) -> Command {
        command.args(["observe", "-o", "json", "--socket"]);
        command.arg(self.node.dir().join("observe.sock"));
        command.args(options);
        command
    }

    /// An observer that has started to read.
    fn observer(&self, options: &[&str]) -> Observer {
        let command = self.command(Command::new(interceptor::binary()), options);
        let observer = Observer::start(command, false);
        let deadline = Instant::now() + EVENT_TIMEOUT;
        while observer.lines.recv_timeout(QUIET).is_err() {
            assert!(Instant::now() < deadline, "{}", self.agent.log());
            self.dial();
        }
        while observer.lines.recv_timeout(QUIET).is_ok() {}
        observer
    }

    /// Each pod makes a connection.
    fn dial(&self) {
        for pod in &self.pods {
            let app = pod.app().expect("the app");
            assert_eq!(dial(app, REMOTE).expect("a dial"), CAPTURED);
        }
    }

    /// The flows, or the error, of a command that exits.
    fn run(&self, options: &[&str]) -> Result<Vec<Value>, String> {
        let mut command = self.command(bounded(interceptor::binary()), options);
        let Output {
            status,
            stdout,
            stderr,
        } = output(&mut command, "").expect("observe");
        if !status.success() {
            return Err(String::from_utf8_lossy(&stderr).into_owned());
        }
        let text = String::from_utf8(stdout).expect("text");
        let flows = text.lines().map(serde_json::from_str);
        Ok(flows.collect::<Result<_, _>>().expect("JSON"))
    }
}

fn names(flows: &[Value]) -> Vec<&str> {
    let names = flows.iter().map(|flow| flow["pod"]["name"].as_str());
    names.map(Option::unwrap_or_default).collect()
}

#[test]
fn several_observers_see_every_flow_with_its_pod() {
    let alone = alone();
    let scene = Scene::new(&alone);
    let web = scene.pods[0].manifest.clone();
    let name = format!("{}/{}", web.namespace, web.name);
    let all = [scene.observer(&[]), scene.observer(&["-f"])];
    let one = scene.observer(&["--pod", &name]);
    let others = scene.observer(&["-n", &web.namespace, "--not", "--pod", &name]);
    // What came while the later ones started.
    for observer in &all {
        while observer.lines.recv_timeout(QUIET).is_ok() {}
    }
    while one.lines.recv_timeout(QUIET).is_ok() {}
    scene.dial();
    for observer in &all {
        let flows = observer.flows();
        assert_eq!(names(&flows), ["web", "db"], "{flows:#?}");
        assert_eq!(flows[0]["pod"]["namespace"], json!(web.namespace));
    }
    assert_eq!(names(&one.flows()), ["web"]);
    assert_eq!(names(&others.flows()), ["db"]);
}

#[test]
fn the_agent_keeps_flows_that_were_observed() {
    let alone = alone();
    let mut scene = Scene::new(&alone);
    assert_eq!(scene.run(&["--last", "5"]), Ok(Vec::new()));
    let observer = scene.observer(&[]);
    scene.dial();
    assert_eq!(names(&observer.flows()), ["web", "db"]);
    drop(observer);
    let last = scene.run(&["--last", "3"]).expect("flows");
    assert_eq!(names(&last), ["db", "web", "db"]);
    let last = scene.run(&["--last", "1", "--not", "--pod"]);
    assert!(last.is_err_and(|error| error.contains("--pod")));
    let since = scene.run(&["--since", "1h"]).expect("flows");
    assert!(since.len() >= 4, "{since:#?}");
    let before = scene.run(&["--since", "1ms"]).expect("flows");
    assert_eq!(before, Vec::<Value>::new());
    // Without an agent, the kernel's buffer has no history.
    scene.agent.kill().expect("killed");
    let error = scene.run(&["--last", "3"]).expect_err("an error");
    assert!(error.contains("no node agent listens at"), "{error}");
    let direct = scene.observer(&[]);
    scene.dial();
    assert_eq!(names(&direct.flows()), ["web", "db"]);
}
