//! How often a rendered template was found in the memo, read at each scrape.

use std::fmt;

use interceptor_injection::istio::MemoCounts;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::webhook::injector::Injector;

/// The memo of the configuration in use. A new configuration counts from zero, as a restarted
/// process does.
#[derive(Debug)]
pub(super) struct MemoMetrics(pub(super) Injector);

impl Collector for MemoMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let current = self.0.current();
        let counts = current.map_or_else(MemoCounts::default, |current| current.memo_counts());
        let mut metric = encoder.encode_descriptor(
            "injection_memo_lookups",
            "Lookups of rendered templates by result: a miss is rendered",
            None,
            MetricType::Counter,
        )?;
        for (result, count) in [("hit", counts.hits), ("miss", counts.misses)] {
            ConstCounter::new(count).encode(metric.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}
