//! Times of requests.

use std::time::Duration;

use crate::{Row, Unit, results::Numbers, summary::quantile};

/// The quantiles that are reported.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Rows of quantiles of the times of each column.
pub(super) fn rows(what: &str, times: &[(&'static str, Vec<Duration>)]) -> Vec<Row> {
    let rows = QUANTILES.iter().map(|(name, part)| {
        let numbers: Vec<Numbers> = times
            .iter()
            .map(|(of, times)| {
                let times: Vec<f64> = times.iter().map(milliseconds).collect();
                ((*of).to_owned(), vec![quantile(&times, *part)])
            })
            .collect();
        Row::new(format!("{what}, {name}"), Unit::Milliseconds, &numbers)
    });
    rows.collect()
}

pub(super) fn milliseconds(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
