//! The agent's metrics have the kernel's statistics of the programs.

use interceptor_testkit::{
    bpf::{pins, stats},
    command::{bounded, run},
    lab::dial,
    node::{AgentProcess, CAPTURED, Driver, Manifest, Node, Pod, REMOTE},
    sysctl::Sysctl,
};

use crate::alone;

const CONNECT: &str = r#"interceptor_bpf_runs_total{program="icept_connect4"}"#;
/// Each pod has a program of this name.
const DISPATCH: &str = r#"interceptor_bpf_runs_total{program="icept_dispatch"}"#;
const DISPATCH_TIME: &str = r#"interceptor_bpf_run_seconds_total{program="icept_dispatch"}"#;

fn pods(node: &Node) -> [Pod; 2] {
    ["web", "db"].map(|name| {
        let manifest = Manifest::of_mesh(name, &node.new_uid());
        node.run(manifest).expect("a pod")
    })
}

fn dial_from(pods: &[Pod]) {
    for pod in pods {
        let app = pod.app().expect("the app");
        assert_eq!(dial(app, REMOTE).expect("a dial"), CAPTURED);
    }
}

fn metric(agent: &AgentProcess, name: &str) -> Option<f64> {
    agent.metric(name).expect("the metrics")
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn kernels_runs(name: &str) -> f64 {
    let runs = stats::runs(name).expect("the kernel's statistics");
    runs.iter().map(|run| run.count).sum::<u64>() as f64
}

#[test]
fn metrics_have_the_runs_of_the_programs() {
    let alone = alone();
    let counted = Sysctl::set("kernel/bpf_stats_enabled", "1").expect("a setting");
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pods = pods(&node);
    dial_from(&pods);
    let connects = metric(&agent, CONNECT).expect("a series");
    assert!(connects >= 2.0, "{connects}");
    let (before, runs, after) = (
        kernels_runs("icept_dispatch"),
        metric(&agent, DISPATCH).expect("a series"),
        kernels_runs("icept_dispatch"),
    );
    assert!(
        before >= 2.0 && (before..=after).contains(&runs),
        "{before} {runs} {after}"
    );
    let seconds = metric(&agent, DISPATCH_TIME).expect("a series");
    assert!(seconds > 0.0, "{seconds}");
    // The kernel's numbers stand still: they would look like programs that do not run.
    drop(counted);
    assert_eq!(metric(&agent, DISPATCH), None);
    assert_eq!(metric(&agent, DISPATCH_TIME), None);
}

#[test]
fn runs_do_not_decrease_when_a_pod_is_deleted() {
    let alone = alone();
    let _counted = Sysctl::set("kernel/bpf_stats_enabled", "1").expect("a setting");
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    let pods = pods(&node);
    dial_from(&pods);
    let before = metric(&agent, DISPATCH).expect("a series");
    let [web, _db] = pods;
    node.delete(web).expect("deleted");
    let after = metric(&agent, DISPATCH).expect("a series");
    assert!(after >= before, "{after} {before}");
}

/// The test writes the programs' counter itself: full speed is needed to fill the buffer.
#[test]
fn metrics_have_the_lost_events_without_an_observer() {
    const LOST: &str = "interceptor_events_lost_total";

    let alone = alone();
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let agent = node.start_ready_agent(&[]).expect("an agent");
    assert_eq!(metric(&agent, LOST), Some(0.0));
    let _pods = pods(&node);
    assert_eq!(metric(&agent, LOST), Some(0.0));
    // bpftool sets the value of each processor.
    let mut update = bounded("bpftool");
    update
        .args(["map", "update", "pinned"])
        .arg(pins::map("icept_lost"));
    update.args([
        "key", "0", "0", "0", "0", "value", "7", "0", "0", "0", "0", "0", "0", "0",
    ]);
    run(&mut update, "").expect("bpftool");
    let lost = metric(&agent, LOST).expect("a series");
    assert!(lost >= 7.0 && lost % 7.0 == 0.0, "{lost}");
}
