//! Entries and capacity of the BPF maps, counted at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
};
use tracing::debug;

use crate::bpf::usage::{self, MapUsage};

/// Reads the kernel's counters at each scrape.
#[derive(Debug)]
pub(in crate::agent) struct MapMetrics;

impl Collector for MapMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // If the read fails, the other metrics are still reported.
        let maps = usage::read().unwrap_or_else(|error| {
            debug!("cannot read the BPF map sizes: {error:#}");
            Vec::new()
        });
        let entries = "Entries in the BPF maps";
        let metric = encoder.encode_descriptor("map_entries", entries, None, MetricType::Gauge)?;
        each(metric, &maps, |map| map.entries)?;
        let capacity = "Capacity of the BPF maps, in entries";
        let metric =
            encoder.encode_descriptor("map_capacity", capacity, None, MetricType::Gauge)?;
        each(metric, &maps, |map| map.capacity)
    }
}

fn each(
    mut metric: MetricEncoder<'_>,
    maps: &[MapUsage],
    number: impl Fn(&MapUsage) -> u32,
) -> fmt::Result {
    maps.iter().try_for_each(|map| {
        let labels = [("map", map.name)];
        ConstGauge::new(number(map)).encode(metric.encode_family(&labels)?)
    })
}
