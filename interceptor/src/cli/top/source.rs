//! Where the counters come from.

use std::collections::HashMap;

use anyhow::Result;

use super::rates::PodCounts;
use crate::{
    agent_client::AgentClient, bpf::counts, dataplane::Dataplane, observe::flow::Pod,
    outcome::ConnectionCount, pod_name::PodName, status::PodStatus,
};

pub(in crate::cli) enum Source {
    /// This node's maps.
    Node,
    /// The agent of another node, and the only pod that is wanted.
    Agent(AgentClient, Option<PodName>),
}

impl Source {
    pub(super) async fn read(&mut self) -> Result<Vec<PodCounts>> {
        match self {
            Self::Node => of_node(),
            Self::Agent(agent, only) => {
                let pods: Vec<PodStatus> = agent.get("/v1/pods").await?;
                let wanted = pods
                    .iter()
                    .filter(|pod| only.is_none() || pod.attached.pod == *only);
                Ok(wanted.map(of_status).collect())
            }
        }
    }
}

fn of_node() -> Result<Vec<PodCounts>> {
    let attached = Dataplane::new().attached()?.into_iter();
    let mut pods: HashMap<_, _> = attached
        .map(|pod| {
            let path = pod.record.netns.display().to_string();
            (pod.netns, Pod::new(pod.record.pod, path, pod.netns))
        })
        .collect();
    let counts = counts::read_pods()?.into_iter();
    // A pod that was attached in the meantime is in the next reading.
    let counts = counts.filter_map(|(netns, counts)| {
        let counts: Vec<_> = counts
            .into_iter()
            .map(|(counted, count)| ConnectionCount::new(counted, count))
            .collect();
        Some(PodCounts::new(pods.remove(&netns)?, &counts))
    });
    Ok(counts.collect())
}

fn of_status(status: &PodStatus) -> PodCounts {
    let attached = &status.attached;
    let path = attached.netns.display().to_string();
    let pod = Pod::new(attached.pod.clone(), path, status.netns_cookie);
    PodCounts::new(pod, &status.connections)
}
