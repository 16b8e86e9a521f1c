//! Nothing happens: the agent sleeps.

use std::{fs, thread, time::Duration};

use super::{new_node, of_mesh, until_captured};

/// How long it is watched.
const WHILE: Duration = Duration::from_secs(3);
/// How often it may wake up in that time: far below one timer a second for each of its threads.
const BOUND: u64 = 2;

#[test]
fn nothing_wakes_the_agent_up() {
    let node = new_node();
    let pod = node.run(of_mesh(&node, "web")).expect("a pod");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    until_captured(&pod, || agent.log());
    // What it does after the start is over, and threads without work have ended.
    thread::sleep(Duration::from_secs(12));
    let before = switches(agent.pid());
    thread::sleep(WHILE);
    let after = switches(agent.pid());
    assert!(
        after - before <= BOUND,
        "{} times\n{}",
        after - before,
        agent.log()
    );
}

/// How often threads of the process have waited for something.
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
