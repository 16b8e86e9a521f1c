//! Metrics of injectors that take pods of ours.

use interceptor_injection::decision::webhooks::OtherInjectors;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    configuration: String,
}

/// All are shared with the copies of this.
#[derive(Clone, Debug, Default)]
pub(in crate::webhook) struct OtherInjectorMetrics {
    configurations: Family<Labels, Gauge>,
    pods: Counter,
}

impl OtherInjectorMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "injection_other_injectors",
            "MutatingWebhookConfigurations of other injectors that can select pods of this one (1)",
            self.configurations.clone(),
        );
        registry.register(
            "injection_pods_of_two_injectors",
            "Pods that were injected, and for which another injector is called too",
            self.pods.clone(),
        );
    }

    /// These are the other injectors.
    pub(in crate::webhook) fn set(&self, others: &OtherInjectors) {
        self.configurations.clear();
        for overlap in others.overlaps() {
            let labels = Labels {
                configuration: overlap.configuration.to_owned(),
            };
            self.configurations.get_or_create(&labels).set(1);
        }
    }

    /// A pod was injected that other injectors take too.
    pub(in crate::webhook) fn injected_twice(&self) {
        self.pods.inc();
    }
}
