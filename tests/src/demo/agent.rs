//! `cargo xtask demo --agent`: pods are created on a node and captured, the agent is killed and
//! upgraded, and every pod dials all the time.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use interceptor_testkit::{
    dialler::{Dialler, Outcomes, Plan},
    interceptor,
    interruption::ensure_uninterrupted,
    lab::{dial, wait_until},
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, PROXIED, Pod, REMOTE},
    users::APP,
};

/// The pods' names, and how each is captured.
const PODS: [(&str, &str); 3] = [
    ("web", "older than the agent"),
    ("shop", "new, by the CNI plugin"),
    ("cart", "new, by the CNI plugin"),
];

/// A captured pod that dials repeatedly.
struct DemoPod {
    pod: Pod,
    how: &'static str,
    first: String,
    dialler: Dialler,
}

/// Runs the demo and returns whether every connection of every pod reached its proxy.
pub(crate) fn run() -> Result<bool> {
    step("a node: kubelet's cgroups, a container runtime's plugins, an API server");
    let node = Node::new(Driver::Systemd)?;
    let [before, by_cni @ ..] = PODS;
    let (mut agent, first) = start_with_first_pod(&node, before)?;
    let mut pods = vec![first];
    for (name, how) in by_cni {
        ensure_uninterrupted()?;
        pods.push(appear(&node, name, how)?);
    }
    kill(&node, &mut agent, &mut pods)?;
    upgrade(&node)?;
    let outcomes = pods
        .into_iter()
        .map(DemoPod::end)
        .collect::<Result<Vec<_>>>()?;
    println!("{}", draw(&outcomes));
    let is_well = |(.., outcomes): &(_, _, _, Outcomes)| outcomes.names() == [PROXIED];
    let well = outcomes.iter().filter(|outcome| is_well(outcome)).count();
    println!(
        "{well} of {} pods: every connection to the proxy, none lost",
        outcomes.len()
    );
    Ok(well == outcomes.len())
}

/// The first pod exists before the agent.
fn start_with_first_pod(
    node: &Node,
    (name, how): (&str, &'static str),
) -> Result<(AgentProcess, DemoPod)> {
    let pod = node.run(manifest(node, name))?;
    let first = dial_from(&pod)?;
    step(&format!("pod {name} runs, and dials {REMOTE}: {first}"));
    ensure_uninterrupted()?;
    step("interceptor agent starts");
    let agent = node.start_ready_agent(&[])?;
    wait_until("capture", || Ok(dial_from(&pod)? == CAPTURED)).with_context(|| agent.log())?;
    step(&format!("pod {name} is captured while it runs: {CAPTURED}"));
    let plugins = node.runtime.plugins()?.join(", ");
    step(&format!("the network's plugins are now: {plugins}"));
    let pod = DemoPod::new(pod, how, first)?;
    Ok((agent, pod))
}

/// A pod created by the runtime, whose app starts before its proxy.
fn appear(node: &Node, name: &str, how: &'static str) -> Result<DemoPod> {
    let mut pod = node.schedule(manifest(node, name))?;
    pod.start_sandbox(node)?;
    pod.start_app(node)?;
    let first = dial_from(&pod)?;
    step(&format!(
        "pod {name} starts; its first connection, without a proxy: {first}"
    ));
    pod.start_proxy(node)?;
    node.report_running(&pod)?;
    step(&format!("pod {name}'s proxy is up: {}", dial_from(&pod)?));
    DemoPod::new(pod, how, first)
}

fn kill(node: &Node, agent: &mut AgentProcess, pods: &mut [DemoPod]) -> Result<()> {
    ensure_uninterrupted()?;
    agent.kill()?;
    step("the agent is killed: SIGKILL");
    for DemoPod { pod, .. } in pods {
        let name = &pod.manifest.name;
        step(&format!("pod {name} without an agent: {}", dial_from(pod)?));
    }
    ensure_uninterrupted()?;
    let mut waiting = node.schedule(manifest(node, "late"))?;
    step("pod late is scheduled, without an agent");
    let agent = node.start_ready_agent(&[])?;
    waiting.start_sandbox(node)?;
    waiting.start_app(node)?;
    step(&format!(
        "an agent runs again, and pod late is captured: {}",
        dial_from(&waiting)?
    ));
    node.delete(waiting)?;
    step("pod late is deleted");
    drop(agent);
    Ok(())
}

/// Upgrades to another build, with another map layout.
fn upgrade(node: &Node) -> Result<()> {
    ensure_uninterrupted()?;
    let mut old = node.start_ready_agent(&[])?;
    step("an upgrade: an agent of another build starts, and waits for the old one");
    let mut new = node.start_agent_of(&interceptor::other_binary(), &[])?;
    old.terminate()?;
    step("the old agent got SIGTERM; its DaemonSet exists: the plugin stays");
    new.wait_until_ready()?;
    step("the new agent is ready");
    wait_until("all pods", || {
        Ok(new.metric(r#"interceptor_pods{state="captured"}"#)? == Some(3.0))
    })
    .with_context(|| new.log())
}

impl DemoPod {
    fn new(pod: Pod, how: &'static str, first: String) -> Result<Self> {
        let to: SocketAddr = REMOTE.parse()?;
        let plan = Plan {
            first: to,
            destinations: 1,
            rounds: u32::MAX,
        };
        let cgroup = pod.cgroup().join("dialler");
        fs::create_dir(&cgroup)?;
        let dialler = Dialler::start(APP, pod.netns()?, &cgroup, &plan)?;
        Ok(Self {
            pod,
            how,
            first,
            dialler,
        })
    }

    fn end(self) -> Result<(String, &'static str, String, Outcomes)> {
        let outcomes = self.dialler.stop()?;
        Ok((
            self.pod.manifest.name.clone(),
            self.how,
            self.first,
            outcomes,
        ))
    }
}

fn manifest(node: &Node, name: &str) -> Manifest {
    Manifest::of_mesh(name, &node.new_uid())
}

/// The server that responds to the pod's app.
fn dial_from(pod: &Pod) -> Result<String> {
    dial(pod.app()?, REMOTE)
}

fn draw(outcomes: &[(String, &str, String, Outcomes)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "pod",
        "captured",
        "at first",
        "then, responses from",
        "connections",
    ]);
    for (name, how, first, outcomes) in outcomes {
        for (server, count) in &outcomes.counts {
            table.add_row([name, *how, first, server, &count.to_string()]);
        }
    }
    table
}

fn step(what: &str) {
    eprintln!("demo: {what}");
}
