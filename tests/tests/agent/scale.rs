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
    let metric = |name: &str| agent.metric(name).ok().flatten();
    let captured = || metric(r#"interceptor_pods{state="captured"}"#) == Some(f64::from(PODS));
    let done = wait_until("all pods", || {
        // Counting is work, too.
        thread::sleep(Duration::from_millis(100));
        Ok(captured())
    });
    let took = begun.elapsed();
    done.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
    let memory = resident(agent.pid());
    println!("{PODS} pods within {took:?} of the agent's start, {memory} KiB");
    assert!(memory < MEMORY, "{memory} KiB");
}

/// What a process has in memory, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB"));
    value.and_then(|value| value.parse().ok()).expect("VmRSS")
}
