//! The webhook's metrics: Istio's names, and our own with reasons.

mod connections;
mod memo;
mod other_injectors;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use interceptor_injection::review::ReviewResult;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

pub(super) use self::connections::ConnectionMetrics;
use self::{memo::MemoMetrics, other_injectors::OtherInjectorMetrics};
use super::injector::Injector;

/// 0.5 ms to 2 s.
const BUCKETS: (f64, f64, u16) = (0.0005, 2.0, 13);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    result: &'static str,
    reason: &'static str,
}

/// The counters. All are shared with the copies of this.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    reviews: Family<ReviewLabels, Counter>,
    duration: Histogram,
    requests: Counter,
    successes: Counter,
    failures: Counter,
    skips: Counter,
    overloads: Counter,
    panics: Counter,
    expiry: Gauge,
    /// Connections that were closed.
    pub(super) connections: ConnectionMetrics,
    /// Injectors that take pods of ours.
    pub(super) other_injectors: OtherInjectorMetrics,
    generation: Gauge<u64, AtomicU64>,
    last_reload: Gauge,
}

impl Metrics {
    /// Nothing has been counted, except by the memo of `injector`.
    pub(super) fn new(injector: Injector) -> Self {
        let (start, factor, length) = BUCKETS;
        let mut metrics = Self {
            registry: Arc::default(),
            reviews: Family::default(),
            duration: Histogram::new(exponential_buckets(start, factor, length)),
            requests: Counter::default(),
            successes: Counter::default(),
            failures: Counter::default(),
            skips: Counter::default(),
            overloads: Counter::default(),
            panics: Counter::default(),
            expiry: Gauge::default(),
            connections: ConnectionMetrics::default(),
            other_injectors: OtherInjectorMetrics::default(),
            generation: Gauge::default(),
            last_reload: Gauge::default(),
        };
        metrics.registry = Arc::new(metrics.registered(injector));
        metrics
    }

    fn registered(&self, injector: Injector) -> Registry {
        let mut all = Registry::default();
        let ours = all.sub_registry_with_prefix("interceptor");
        let mut counter =
            |name, help, counter: &Counter| ours.register(name, help, counter.clone());
        counter(
            "injection_overloads",
            "Requests that were rejected because too many were in progress",
            &self.overloads,
        );
        counter(
            "injection_panics",
            "Reviews that were refused because the webhook panicked",
            &self.panics,
        );
        ours.register_collector(Box::new(MemoMetrics(injector)));
        ours.register(
            "injection_reviews",
            "Admission reviews, by result and the rule that decided",
            self.reviews.clone(),
        );
        ours.register(
            "injection_review_duration_seconds",
            "Time to process an admission review",
            self.duration.clone(),
        );
        ours.register(
            "webhook_certificate_expiry_timestamp_seconds",
            "End of the validity of the webhook's certificate, in seconds since 1970",
            self.expiry.clone(),
        );
        self.connections.register(ours);
        self.other_injectors.register(ours);
        ours.register(
            "injection_config_generation",
            "Number of the configuration in use: counts the configurations since the start, from 1",
            self.generation.clone(),
        );
        ours.register(
            "injection_config_last_reload_success",
            "Whether the newest configuration is in use (1), or an error keeps it out (0)",
            self.last_reload.clone(),
        );
        // The names that existing dashboards and alerts use.
        for (name, help, counter) in [
            ("requests", "Admission reviews", &self.requests),
            ("success", "Pods that were injected", &self.successes),
            ("failure", "Pods that were refused", &self.failures),
            ("skip", "Pods that were not injected", &self.skips),
        ] {
            all.register(format!("sidecar_injection_{name}"), help, counter.clone());
        }
        all.register(
            "sidecar_injection_time_seconds",
            "Time to process an admission review",
            self.duration.clone(),
        );
        all
    }

    /// A review was processed.
    pub(super) fn reviewed(&self, result: ReviewResult, took: Duration) {
        let labels = ReviewLabels {
            result: result.label(),
            reason: result.reason(),
        };
        self.reviews.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
        self.requests.inc();
        let counter = match result {
            ReviewResult::Injected(_) => &self.successes,
            ReviewResult::Skipped(_) | ReviewResult::NotApplicable => &self.skips,
            ReviewResult::Refused | ReviewResult::Invalid => &self.failures,
        };
        counter.inc();
    }

    /// A request was rejected for overload.
    pub(super) fn overloaded(&self) {
        self.overloads.inc();
    }

    /// A review panicked.
    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    /// The certificate is valid until then, in seconds since 1970.
    pub(super) fn expires(&self, timestamp: i64) {
        self.expiry.set(timestamp);
    }

    /// The configuration of this number is in use.
    pub(super) fn configured(&self, generation: u64) {
        self.generation.set(generation);
        self.last_reload.set(1);
    }

    /// A configuration was kept out.
    pub(super) fn misconfigured(&self) {
        self.last_reload.set(0);
    }

    /// In the text format of `OpenMetrics`.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
