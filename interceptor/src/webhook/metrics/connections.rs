//! Metrics of connections that the limit of open ones has ended.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// All are shared with the copies of this.
#[derive(Clone, Debug, Default)]
pub(in crate::webhook) struct ConnectionMetrics {
    evicted: Counter,
    rejected: Counter,
}

impl ConnectionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "webhook_connections_evicted",
            "Connections without a request in progress that were closed for a new one",
            self.evicted.clone(),
        );
        registry.register(
            "webhook_connections_rejected",
            "New connections that were closed because all others had requests in progress",
            self.rejected.clone(),
        );
    }

    /// A connection was closed for a new one.
    pub(in crate::webhook) fn evicted(&self) {
        self.evicted.inc();
    }

    /// A new connection was closed.
    pub(in crate::webhook) fn rejected(&self) {
        self.rejected.inc();
    }
}
