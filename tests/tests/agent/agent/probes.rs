//! kubelet's probes of the agent, as deployed: a normal start causes no Event.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::node::{AgentProcess, container};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::new_node;

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let seconds = value.and_then(|value| u64::try_from(value).ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// Probes once, as kubelet does.
fn probe(agent: &AgentProcess, probe: &Probe) -> Result<(u16, String)> {
    let path = probe.http_get.as_ref().and_then(|get| get.path.as_deref());
    let path = path.context("a probe by HTTP")?;
    agent.get_within(path, seconds(probe.timeout_seconds, 1))
}

/// The first probes of a container: the startup probe, then the two others. Each failure would cause a
/// Warning Event.
fn start(agent: &AgentProcess, container: &Container) -> Result<Vec<(u16, String)>> {
    let startup = container
        .startup_probe
        .as_ref()
        .context("a startup probe")?;
    thread::sleep(seconds(startup.initial_delay_seconds, 0));
    let probes = [
        Some(startup),
        container.readiness_probe.as_ref(),
        container.liveness_probe.as_ref(),
    ];
    let probes = probes.into_iter().flatten();
    probes.map(|each| probe(agent, each)).collect()
}

fn expect_no_event(agent: &AgentProcess) {
    let container = container().expect("a container");
    let responses = start(agent, &container).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(responses.len(), 3);
    for (status, text) in responses {
        assert_eq!(status, 200, "{text}\n{}", agent.log());
    }
}

#[test]
fn a_start_causes_no_warning() {
    let node = new_node();
    expect_no_event(&node.start_agent(&[]).expect("an agent"));
}

/// With a slow API server.
#[test]
fn a_slow_start_causes_no_warning() {
    let node = new_node();
    node.api.delay(Duration::from_secs(3));
    expect_no_event(&node.start_agent(&[]).expect("an agent"));
}

/// Only the readiness probe fails: kubelet must not restart the agent because of the startup probe.
#[test]
fn an_agent_that_is_not_ready_passes_the_startup_probe() {
    let node = new_node();
    node.api.set_unavailable(true);
    let start_time = Instant::now();
    let agent = node.start_agent(&[]).expect("an agent");
    let container = container().expect("a container");
    let responses = start(&agent, &container).unwrap_or_else(|error| panic!("{error:#}"));
    let statuses: Vec<_> = responses.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 503, 200], "{}", agent.log());
    let limit = container
        .startup_probe
        .and_then(|probe| probe.timeout_seconds);
    assert!(
        start_time.elapsed() < seconds(limit, 1),
        "{:?}",
        start_time.elapsed()
    );
}
