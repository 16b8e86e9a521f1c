//! Connections by verdict and reason, read at each scrape.

use std::fmt;

use interceptor_ebpf::Counted;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use tracing::debug;

use crate::{
    bpf::counts,
    outcome::{Outcome, Verdict},
};

/// Reads the kernel's counters at each scrape.
#[derive(Debug)]
pub(in crate::agent) struct ConnectionMetrics;

impl Collector for ConnectionMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // If the read fails, the other metrics are still reported.
        let counts = counts::read().unwrap_or_else(|error| {
            debug!("cannot read the connection counters: {error:#}");
            Vec::new()
        });
        encode(encoder, &counts)
    }
}

fn encode(mut encoder: DescriptorEncoder<'_>, counts: &[(Counted, u64)]) -> fmt::Result {
    let help = "Connections of captured pods by direction, verdict and reason";
    let mut metric = encoder.encode_descriptor("connections", help, None, MetricType::Counter)?;
    counts.iter().try_for_each(|(counted, count)| {
        let labels = labels(*counted);
        ConstCounter::new(*count).encode(metric.encode_family(&labels)?)
    })
}

pub(super) fn labels(counted: Counted) -> [(&'static str, &'static str); 3] {
    let outcome = Outcome::from(counted);
    let verdict = match outcome.verdict {
        Verdict::Passed => "passed",
        Verdict::Captured => "captured",
        Verdict::Refused => "refused",
    };
    [
        ("direction", outcome.direction.name()),
        ("verdict", verdict),
        ("reason", outcome.reason),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use interceptor_ebpf::{COUNTS, Direction, Listener, Reason, Refusal, Verdict};
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[derive(Debug)]
    struct Known([(Counted, u64); 3]);

    impl Collector for Known {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(encoder, &self.0)
        }
    }

    #[test]
    fn labels_are_direction_verdict_and_reason() {
        let passed = Verdict::Pass(Reason::ProxyUidGid);
        let captured = Verdict::Capture(Listener::Inbound, Reason::InboundPortIncluded);
        let mut registry = Registry::with_prefix("interceptor");
        registry.register_collector(Box::new(Known([
            (Counted::verdict(Direction::Outbound, &passed), 3),
            (Counted::verdict(Direction::Inbound, &captured), 2),
            (
                Counted::refusal(Direction::Outbound, Refusal::NoListener),
                1,
            ),
        ])));
        let mut exported = String::new();
        text::encode(&mut exported, &registry).unwrap();
        let name = "interceptor_connections_total";
        for line in [
            r#"{direction="outbound",verdict="passed",reason="proxy_uid_gid"} 3"#,
            r#"{direction="inbound",verdict="captured",reason="inbound_port_included"} 2"#,
            r#"{direction="outbound",verdict="refused",reason="no_listener"} 1"#,
        ] {
            assert!(
                exported.contains(&format!("{name}{line}\n")),
                "{line}\n{exported}"
            );
        }
    }

    #[test]
    fn no_two_counters_have_the_same_labels() {
        let all: HashSet<_> = Counted::all().map(labels).collect();
        assert_eq!(all.len(), COUNTS);
    }
}
