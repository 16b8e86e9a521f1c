//! An idle agent sleeps.

use std::{fs, thread, time::Duration};

use super::{new_node, of_mesh, until_captured};

/// How long the agent is observed.
const PERIOD: Duration = Duration::from_secs(3);
/// Maximum number of wake-ups in that time: far below one per second and thread.
const MAX_WAKEUPS: u64 = 2;

#[test]
fn an_idle_agent_does_not_wake_up() {
    let node = new_node();
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&pod, || agent.log());
    // Until then the agent's work after the start is done, and idle threads have exited.
    thread::sleep(Duration::from_secs(12));
    let before = switches(agent.pid());
    thread::sleep(PERIOD);
    let after = switches(agent.pid());
    assert!(
        after - before <= MAX_WAKEUPS,
        "{} times\n{}",
        after - before,
        agent.log()
    );
}

/// The number of voluntary context switches of the process's threads.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let statuses = tasks.flatten().filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    });
    statuses.sum()
}
