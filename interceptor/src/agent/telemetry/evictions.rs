//! Evicted stand-ins of each captured pod, read at each scrape.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use interceptor_ebpf::NetnsCookie;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use tracing::debug;

use crate::{agent::policy::pod::PodName, bpf::pod_state};

/// The captured pods by network namespace. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct EvictionMetrics {
    pods: Arc<Mutex<HashMap<NetnsCookie, PodName>>>,
}

impl EvictionMetrics {
    /// Reports the evictions of a pod while the returned value exists.
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
}

/// See [`EvictionMetrics::count`].
#[derive(Debug)]
pub struct CountedPod {
    metrics: EvictionMetrics,
    netns: NetnsCookie,
}

impl Drop for CountedPod {
    fn drop(&mut self) {
        self.metrics.pods().remove(&self.netns);
    }
}

impl Collector for EvictionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // If the read fails, the other metrics are still reported.
        let evicted = pod_state::evicted_stand_ins().unwrap_or_else(|error| {
            debug!("cannot read the stand-in eviction counters: {error:#}");
            Vec::new()
        });
        let help = "Destinations of a pod that were evicted because it used more than its share";
        let name = "stand_ins_evicted";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let pods = self.pods();
        for (netns, count) in evicted {
            let Some(pod) = pods.get(&netns).filter(|_| count > 0) else {
                continue;
            };
            let labels = [("namespace", &*pod.namespace), ("pod", &*pod.name)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
