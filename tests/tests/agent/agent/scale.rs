//! The maximum number of pods of a node.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::new_node;

const PODS: u8 = 250;

/// The maximum memory of the agent, in KiB. (Without the pages of its binary, whose number depends on the
/// build, and which the kernel can drop.)
const MAX_MEMORY: u64 = 30 * 1024;

#[test]
fn many_pods_are_captured_in_little_memory() {
    let node = new_node();
    let _pods = node.fill(PODS).expect("pods");
    let start = Instant::now();
    let agent = node.start_agent(&["--no-cni"]).expect("an agent");
    let captured = agent.wait_until_captured(PODS.into()).expect("all pods");
    let (took, cpu_time) = (start.elapsed(), cpu_time(agent.pid()));
    let count = agent.metric(r#"interceptor_pods{state="captured"}"#);
    assert_eq!(count.expect("the metrics"), Some(f64::from(PODS)));
    let memory = anonymous(agent.pid());
    let attaching: Duration = captured.iter().sum();
    println!(
        "{PODS} pods within {took:?} of the agent's start: {attaching:?} of attaching, {cpu_time:?} of CPU \
         time, {memory} KiB"
    );
    assert!(memory < MAX_MEMORY, "{memory} KiB");
}

/// The resident anonymous memory of a process, in KiB.
fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).expect("RssAnon")
}

/// The CPU time of a process: fields 14 and 15 of `proc_pid_stat(5)`.
fn cpu_time(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let fields = after_name.split_whitespace().skip(14 - 3).take(2);
    let ticks: u32 = fields
        .map(|field| field.parse::<u32>().expect("ticks"))
        .sum();
    TICK * ticks
}
