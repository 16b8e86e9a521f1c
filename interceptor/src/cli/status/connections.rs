//! The connections of a pod since it was attached.

use super::super::output::{lines, table};
use crate::{
    outcome::{ConnectionCount, Verdict},
    status::PodStatus,
};

/// The number of connections with this verdict, in both directions.
pub(super) fn total(pod: &PodStatus, verdict: Verdict) -> u64 {
    let counts = pod.connections.iter();
    counts
        .filter(|count| count.verdict == verdict)
        .map(|count| count.count)
        .sum()
}

/// One line for each direction, verdict and reason.
pub(super) fn by_reason(pod: &PodStatus) -> String {
    if pod.connections.is_empty() {
        return "No connection since the attach.\n".to_owned();
    }
    let mut table = table(["CONNECTIONS", "VERDICT", "REASON", "COUNT"]);
    for ConnectionCount {
        direction,
        verdict,
        reason,
        count,
    } in &pod.connections
    {
        table.add_row([direction.name(), verdict.name(), reason, &count.to_string()]);
    }
    lines(table)
}
