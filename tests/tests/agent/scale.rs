//! As many pods as a node may have.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use interceptor_tests::{lab::wait_until, node::Pod};

use super::{new_node, of_mesh};

const PODS: u8 = 250;

/// What the agent may have in memory, in KiB.
const MEMORY: u64 = 40 * 1024;

#[test]
fn many_pods_are_captured_in_little_memory() {
    let node = new_node();
    let _pods: Vec<Pod> = (0..PODS)
        .map(|number| {
            let mut pod = node
                .schedule(of_mesh(&node, &format!("web-{number}")))
                .expect("a pod");
            pod.start_light_sandbox(&node, number).expect("a sandbox");
            node.report_running(&pod).expect("reported");
            pod
        })
        .collect();
    let begun = Instant::now();
    let agent = node.start_agent(&["--no-cni"]).expect("an agent");
    // Its metrics would count every entry of its maps each time.
    let captured = || agent.log().matches(": captured ").count();
    let done = wait_until("all pods", || {
        // Counting is work, too.
        thread::sleep(Duration::from_millis(20));
        Ok(captured() == usize::from(PODS))
    });
    let (took, worked) = (begun.elapsed(), worked(agent.pid()));
    done.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let told = agent.metric(r#"interceptor_pods{state="captured"}"#);
    assert_eq!(told.expect("the metrics"), Some(f64::from(PODS)));
    let memory = resident(agent.pid());
    let metric = |name: &str| agent.metric(name).expect("the metrics").expect(name);
    let attaching = Duration::from_secs_f64(metric("interceptor_attach_duration_seconds_sum"));
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
