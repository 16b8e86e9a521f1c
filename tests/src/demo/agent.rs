//! `cargo xtask demo --agent`: pods appear on a node and are captured, the agent is killed and
//! upgraded, and all the time every pod dials on.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets};
use interceptor_testkit::{
    dialler::{Dialler, Outcomes, Plan},
    interceptor,
    lab::{dial, wait_until},
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, PROXIED, Pod, REMOTE},
    users::APP,
};

use crate::interruption::ensure_uninterrupted;

/// What each pod is called, and how it comes to be captured.
const PODS: [(&str, &str); 3] = [
    ("web", "was there before the agent"),
    ("shop", "new, by the CNI plugin"),
    ("cart", "new, by the CNI plugin"),
];

/// A pod that is captured, and dials on.
struct Told {
    pod: Pod,
    how: &'static str,
    first: String,
    dialler: Dialler,
}

/// Runs it and answers whether every connection of every pod went to its proxy.
pub(crate) fn run() -> Result<bool> {
    say("a node: kubelet's cgroups, a container runtime's plugins, an API server");
    let node = Node::new(Driver::Systemd)?;
    let [before, by_cni @ ..] = PODS;
    let (mut agent, first) = begin(&node, before)?;
    let mut told = vec![first];
    for (name, how) in by_cni {
        ensure_uninterrupted()?;
        told.push(appear(&node, name, how)?);
    }
    kill(&node, &mut agent, &mut told)?;
    upgrade(&node)?;
    let outcomes = told
        .into_iter()
        .map(Told::end)
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

/// The first pod is there before the agent.
fn begin(node: &Node, (name, how): (&str, &'static str)) -> Result<(AgentProcess, Told)> {
    let pod = node.run(manifest(node, name))?;
    let first = answer(&pod)?;
    say(&format!("pod {name} runs, and dials {REMOTE}: {first}"));
    ensure_uninterrupted()?;
    say("interceptor agent starts");
    let agent = node.start_ready_agent(&[])?;
    wait_until("capture", || Ok(answer(&pod)? == CAPTURED)).with_context(|| agent.log())?;
    say(&format!(
        "pod {name} is captured where it stands: {CAPTURED}"
    ));
    let plugins = node.runtime.plugins()?.join(", ");
    say(&format!("the network's plugins are now: {plugins}"));
    let told = Told::new(pod, how, first)?;
    Ok((agent, told))
}

/// A pod that the runtime makes, whose app starts before its proxy.
fn appear(node: &Node, name: &str, how: &'static str) -> Result<Told> {
    let mut pod = node.schedule(manifest(node, name))?;
    pod.start_sandbox(node)?;
    pod.start_app(node)?;
    let first = answer(&pod)?;
    say(&format!(
        "pod {name} starts; its first connection, without a proxy: {first}"
    ));
    pod.start_proxy(node)?;
    node.report_running(&pod)?;
    say(&format!("pod {name}'s proxy is up: {}", answer(&pod)?));
    Told::new(pod, how, first)
}

fn kill(node: &Node, agent: &mut AgentProcess, told: &mut [Told]) -> Result<()> {
    ensure_uninterrupted()?;
    agent.kill()?;
    say("the agent is killed: SIGKILL");
    for Told { pod, .. } in told {
        let name = &pod.manifest.name;
        say(&format!("pod {name} without an agent: {}", answer(pod)?));
    }
    ensure_uninterrupted()?;
    let mut waiting = node.schedule(manifest(node, "late"))?;
    say("pod late is to start, without an agent");
    let agent = node.start_ready_agent(&[])?;
    waiting.start_sandbox(node)?;
    waiting.start_app(node)?;
    say(&format!(
        "an agent is back, and pod late is captured: {}",
        answer(&waiting)?
    ));
    node.delete(waiting)?;
    say("pod late is deleted");
    drop(agent);
    Ok(())
}

/// Another build takes over, whose maps are laid out in another way.
fn upgrade(node: &Node) -> Result<()> {
    ensure_uninterrupted()?;
    let mut old = node.start_ready_agent(&[])?;
    say("an upgrade: an agent of another build starts, and waits for the old one");
    let mut new = node.start_agent_of(&interceptor::other_binary(), &[])?;
    old.terminate()?;
    say("the old agent has been told to end; its DaemonSet is there: the plugin stays");
    new.wait_until_ready()?;
    say("the new agent has taken over");
    wait_until("all pods", || {
        Ok(new.metric(r#"interceptor_pods{state="captured"}"#)? == Some(3.0))
    })
    .with_context(|| new.log())
}

impl Told {
    fn new(pod: Pod, how: &'static str, first: String) -> Result<Self> {
        let to: SocketAddr = REMOTE.parse()?;
        let plan = Plan {
            first: to,
            destinations: 1,
            rounds: u32::MAX,
        };
        let place = pod.cgroup().join("dialler");
        fs::create_dir(&place)?;
        let dialler = Dialler::start(APP, pod.netns()?, &place, &plan)?;
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

/// Who answers the pod's app.
fn answer(pod: &Pod) -> Result<String> {
    dial(pod.app()?, REMOTE)
}

fn draw(outcomes: &[(String, &str, String, Outcomes)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "pod",
        "captured",
        "at first",
        "then, who answered",
        "connections",
    ]);
    for (name, how, first, outcomes) in outcomes {
        for (who, count) in &outcomes.counts {
            table.add_row([name, *how, first, who, &count.to_string()]);
        }
    }
    table
}

fn say(what: &str) {
    eprintln!("demo: {what}");
}
