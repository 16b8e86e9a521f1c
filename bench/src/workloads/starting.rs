//! The start of an agent on a node full of pods.

use std::time::{Duration, Instant};

use anyhow::Result;
use interceptor_testkit::{
    interceptor,
    node::{Driver, Node, Pod},
};

use crate::{Contestant, Row, Scale, Section, Unit};

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let node = Node::make(Driver::Systemd, None)?;
    let pods = node.fill(scale.pods)?;
    let mut starts = Vec::new();
    let mut each = Vec::new();
    for _ in 0..scale.starts {
        let (start, captured) = start(&node, &pods)?;
        starts.push(start);
        each.extend(captured);
    }
    Ok(Section {
        method: format!(
            "An agent with the permissions and the API server of a cluster is started on a node \
             where {} pods run and nothing is attached, {} times.",
            pods.len(),
            scale.starts
        ),
        rows: vec![
            row("from its start until the last pod is captured", &starts),
            row("attaching each", &each),
        ],
        ..Section::default()
    })
}

/// The time until all pods were captured, and that of each. Reverted when this returns.
fn start(node: &Node, pods: &[Pod]) -> Result<(Duration, Vec<Duration>)> {
    let start = Instant::now();
    let mut agent = node.start_agent(&["--no-cni"])?;
    let each = agent.wait_until_captured(pods.len())?;
    let took = start.elapsed();
    agent.terminate()?;
    for pod in pods {
        interceptor::detach(pod.netns()?.path())?;
    }
    Ok((took, each))
}

fn row(what: &str, times: &[Duration]) -> Row {
    let times = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    let numbers = [(Contestant::Interceptor.to_string(), times)];
    Row::new(what, Unit::Milliseconds, &numbers)
}
