//! The agent's metrics for Prometheus.

use std::{fmt, sync::Arc, time::Duration};

use interceptor_ebpf::NetnsCookie;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use super::{
    connections::ConnectionMetrics,
    maps::MapMetrics,
    pods::{CountedPod, Detail, PodMetrics},
    programs::ProgramMetrics,
};
use crate::agent::policy::pod::PodName;

/// Attaching: 0.5 ms to 16 s.
const ATTACHING: (f64, f64, u16) = (0.0005, 2.0, 16);

/// Uncaptured: 1 ms to an hour and more.
const UNCAPTURED: (f64, f64, u16) = (0.001, 4.0, 13);

/// A pod's state in the metric `interceptor_pods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodState {
    /// Captured.
    Captured,
    /// To be captured, and not captured yet.
    Pending,
    /// To be captured; an attempt failed.
    Failed,
    /// Not to be captured.
    Skipped,
}

impl PodState {
    const ALL: [Self; 4] = [Self::Captured, Self::Pending, Self::Failed, Self::Skipped];

    fn label(self) -> StateLabel {
        let state = match self {
            Self::Captured => "captured",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        };
        StateLabel { state }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    result: &'static str,
}

/// The metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    pods: Family<StateLabel, Gauge>,
    attach: Histogram,
    uncaptured: Histogram,
    requests: Family<RequestLabels, Counter>,
    repairs: Family<ResultLabel, Counter>,
    closed: Counter,
    stale: Gauge,
    ready: Gauge,
    by_pod: PodMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Detail::default())
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        let exponential = |(start, factor, length)| {
            let buckets = prometheus_client::metrics::histogram::exponential_buckets;
            Histogram::new(buckets(start, factor, length))
        };
        let mut metrics = Self {
            registry: Arc::default(),
            pods: Family::default(),
            attach: exponential(ATTACHING),
            uncaptured: exponential(UNCAPTURED),
            requests: Family::default(),
            repairs: Family::default(),
            closed: Counter::default(),
            stale: Gauge::default(),
            ready: Gauge::default(),
            by_pod: PodMetrics::new(detail),
        };
        for state in PodState::ALL {
            metrics.pods.get_or_create(&state.label()).set(0);
        }
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }

    fn registered(&self) -> Registry {
        let mut all = Registry::default();
        let ours = all.sub_registry_with_prefix("interceptor");
        ours.register(
            "pods",
            "Pods on this node by capture state",
            self.pods.clone(),
        );
        ours.register(
            "attach_duration_seconds",
            "Time to attach a pod, without queueing",
            self.attach.clone(),
        );
        ours.register(
            "uncaptured_seconds",
            "Time that containers of a pod in the mesh ran before capture",
            self.uncaptured.clone(),
        );
        ours.register(
            "cni_requests",
            "Requests from the CNI plugin, by verb and result",
            self.requests.clone(),
        );
        ours.register(
            "repairs",
            "Attempts to capture already running pods, by result",
            self.repairs.clone(),
        );
        ours.register(
            "closed_connections",
            "Connections closed because they bypassed a pod's proxy",
            self.closed.clone(),
        );
        ours.register(
            "routes_stale",
            "Pods whose changed addresses or routes are not applied yet",
            self.stale.clone(),
        );
        let ready = "Whether the agent is ready: the CNI plugin is installed and the pod list is \
             received";
        ours.register("cni_install_ready", ready, self.ready.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The running release", build);
        ours.register_collector(Box::new(ConnectionMetrics));
        ours.register_collector(Box::new(MapMetrics));
        ours.register_collector(Box::new(self.by_pod.clone()));
        ours.register_collector(Box::<ProgramMetrics>::default());
        // The name in existing alerts for istio-cni.
        all.register("istio_cni_install_ready", ready, self.ready.clone());
        all
    }

    /// Sets the number of pods in each state.
    pub fn pods(&self, counts: &[(PodState, usize)]) {
        for (state, count) in counts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.pods.get_or_create(&state.label()).set(count);
        }
    }

    /// Records how long attaching a pod took.
    pub fn attached(&self, took: Duration) {
        self.attach.observe(took.as_secs_f64());
    }

    /// Records how long a pod's containers ran uncaptured.
    pub fn uncaptured(&self, time: Duration) {
        self.uncaptured.observe(time.as_secs_f64());
    }

    /// Counts a request of the CNI plugin.
    pub fn request(&self, verb: &'static str, result: &'static str) {
        self.requests
            .get_or_create(&RequestLabels { verb, result })
            .inc();
    }

    /// Counts an attempt to capture a running pod.
    pub fn repair(&self, succeeded: bool) {
        let result = if succeeded { "success" } else { "failure" };
        self.repairs.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts closed connections of a pod.
    pub fn closed(&self, count: u64) {
        self.closed.inc_by(count);
    }

    /// Counts a pod with stale routes while the returned value exists.
    #[must_use]
    pub fn stale_routes(&self) -> StaleRoutes {
        self.stale.inc();
        StaleRoutes(self.stale.clone())
    }

    /// Reports on a captured pod while the returned value exists.
    #[must_use]
    pub fn captured(&self, netns: NetnsCookie, pod: PodName) -> CountedPod {
        self.by_pod.count(netns, pod)
    }

    /// Sets whether the agent is ready.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// All metrics in the `OpenMetrics` text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// See [`Metrics::stale_routes`].
#[derive(Debug)]
pub struct StaleRoutes(Gauge);

impl Drop for StaleRoutes {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_the_documented_ones() {
        let metrics = Metrics::default();
        metrics.pods(&[(PodState::Captured, 2), (PodState::Failed, 1)]);
        metrics.request("add", "captured");
        metrics.repair(true);
        metrics.attached(Duration::from_millis(2));
        metrics.ready(true);
        let stale = metrics.stale_routes();
        let text = metrics.text().unwrap();
        for line in [
            "interceptor_pods{state=\"captured\"} 2",
            "interceptor_pods{state=\"pending\"} 0",
            "interceptor_pods{state=\"failed\"} 1",
            "interceptor_cni_requests_total{verb=\"add\",result=\"captured\"} 1",
            "interceptor_repairs_total{result=\"success\"} 1",
            "interceptor_attach_duration_seconds_count 1",
            "interceptor_uncaptured_seconds_count 0",
            "interceptor_routes_stale 1",
            "interceptor_cni_install_ready 1",
            "istio_cni_install_ready 1",
            "interceptor_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(stale);
        assert!(
            metrics
                .text()
                .unwrap()
                .contains("interceptor_routes_stale 0")
        );
    }
}
