//! As many pods as a node may have.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::new_node;

const PODS: u8 = 250;

/// What the agent may have in memory, in KiB.
const MEMORY: u64 = 40 * 1024;

#[test]
fn many_pods_are_captured_in_little_memory() {
    let node = new_node();
    let _pods = node.fill(PODS).expect("pods");
    let begun = Instant::now();
    let agent = node.start_agent(&["--no-cni"]).expect("an agent");
    let captured = agent.wait_until_captured(PODS.into()).expect("all pods");
    let (took, worked) = (begun.elapsed(), worked(agent.pid()));
    let told = agent.metric(r#"interceptor_pods{state="captured"}"#);
    assert_eq!(told.expect("the metrics"), Some(f64::from(PODS)));
    let memory = resident(agent.pid());
    let attaching: Duration = captured.iter().sum();
    println!(
        "{PODS} pods within {took:?} of the agent's start: {attaching:?} of attaching, {worked:?} on \
         processors, {memory} KiB"
    );
    assert!(memory < MEMORY, "{memory} KiB");
}

/// What a process has in memory, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).expect("VmRSS")
}

/// How long a process has been on processors: fields 14 and 15 of `proc_pid_stat(5)`.
fn worked(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let fields = after_name.split_whitespace().skip(14 - 3).take(2);
    let ticks: u32 = fields
        .map(|field| field.parse::<u32>().expect("ticks"))
        .sum();
    TICK * ticks
}
