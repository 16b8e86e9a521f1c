//! The connections of a pod since it was attached.

use super::super::output::{lines, table};
use crate::{
    outcome::{ConnectionCount, Direction, Verdict},
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
        let direction = match direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        };
        let verdict = match verdict {
            Verdict::Captured => "CAPTURED",
            Verdict::Passed => "PASSED",
            Verdict::Refused => "REFUSED",
        };
        table.add_row([direction, verdict, reason, &count.to_string()]);
    }
    lines(table)
}
