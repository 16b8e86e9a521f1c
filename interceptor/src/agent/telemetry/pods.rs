//! Metrics of each captured pod, read from the kernel at each scrape.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use interceptor_ebpf::{Counted, NetnsCookie};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use tracing::debug;

use super::connections;
use crate::{
    agent::policy::pod::PodName,
    bpf::{counts, pod_state},
};

/// How much is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Of a pod only what is unusual.
    #[default]
    Node,
    /// Also the connections of each pod: about ten series for each.
    Pods,
}

/// The captured pods by network namespace. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct PodMetrics {
    pods: Arc<Mutex<HashMap<NetnsCookie, PodName>>>,
    detail: Detail,
}

impl PodMetrics {
    pub(in crate::agent) fn new(detail: Detail) -> Self {
        Self {
            pods: Arc::default(),
            detail,
        }
    }

    /// Reports on a pod while the returned value exists.
    pub(in crate::agent) fn count(&self, netns: NetnsCookie, pod: PodName) -> CountedPod {
        self.pods().insert(netns, pod);
        CountedPod {
            metrics: self.clone(),
            netns,
        }
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<NetnsCookie, PodName>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode_evicted(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let evicted = read("stand-in evictions", pod_state::evicted_stand_ins());
        let help = "Destinations of a pod that were evicted because it used more than its share";
        let name = "stand_ins_evicted";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let pods = self.pods();
        for (netns, count) in evicted {
            let Some(pod) = pods.get(&netns).filter(|_| count > 0) else {
                continue;
            };
            ConstCounter::new(count).encode(metric.encode_family(&labels(pod))?)?;
        }
        Ok(())
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connections = read("connections", counts::read_pods());
        let help = "Connections of a captured pod by direction, verdict and reason";
        let name = "pod_connections";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let pods = self.pods();
        for (netns, counts) in connections {
            let Some(pod) = pods.get(&netns) else {
                continue;
            };
            for (counted, count) in counts {
                let labels = connection_labels(pod, counted);
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for PodMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_evicted(&mut encoder)?;
        match self.detail {
            Detail::Node => Ok(()),
            Detail::Pods => self.encode_connections(&mut encoder),
        }
    }
}

/// If a read fails, the other metrics are still reported.
fn read<T>(what: &str, counts: Result<Vec<T>>) -> Vec<T> {
    counts.unwrap_or_else(|error| {
        debug!("cannot read the {what} of the pods: {error:#}");
        Vec::new()
    })
}

fn labels(pod: &PodName) -> [(&'static str, &str); 2] {
    [("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn connection_labels(pod: &PodName, counted: Counted) -> [(&'static str, &str); 5] {
    let [namespace, name] = labels(pod);
    let [direction, verdict, reason] = connections::labels(counted);
    [namespace, name, direction, verdict, reason]
}

/// A pod that is reported until this is dropped.
#[derive(Debug)]
pub struct CountedPod {
    metrics: PodMetrics,
    netns: NetnsCookie,
}

impl Drop for CountedPod {
    fn drop(&mut self) {
        self.metrics.pods().remove(&self.netns);
    }
}
