//! The targets, and their verdicts.

use serde::{Deserialize, Serialize};

use super::{Contestant, Section, Summary, Unit, Workload};

const DIRECT: &str = Contestant::Direct.name();
const IPTABLES: &str = Contestant::Iptables.name();
const OURS: &str = Contestant::Interceptor.name();
/// The captured pods of [`Workload::Strict`].
const STRICT: &str = "strict";
const NOT_STRICT: &str = "not strict";

/// A target and its verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The measured quantity.
    pub what: String,
    /// The target value.
    pub wanted: String,
    /// Interceptor's value.
    pub measured: Option<Summary>,
    /// iptables' value, if comparable.
    pub iptables: Option<Summary>,
    /// The unit; none for a ratio.
    pub unit: Option<Unit>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdict of a target: by the median.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The target is met.
    Met,
    /// The target is missed.
    Missed,
    /// The workload was not part of the run.
    NotMeasured,
    /// Reported without a target.
    Info,
}

impl Verdict {
    /// Its text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
            Self::Info => "info",
        }
    }
}

/// The limit of a number.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
    Above(f64),
    None,
}

impl Bound {
    pub(super) fn judge(self, number: f64) -> Verdict {
        let is_met = match self {
            Self::AtMost(limit) => number <= limit,
            Self::AtLeast(limit) => number >= limit,
            Self::Below(limit) => number < limit,
            Self::Above(limit) => number > limit,
            Self::None => return Verdict::Info,
        };
        if is_met {
            Verdict::Met
        } else {
            Verdict::Missed
        }
    }

    pub(super) fn text(self, unit: Option<Unit>) -> String {
        let unit = unit.map_or_else(String::new, |unit| format!(" {}", unit.symbol()));
        match self {
            Self::AtMost(limit) => format!("≤ {limit}{unit}"),
            Self::AtLeast(limit) => format!("≥ {limit}{unit}"),
            Self::Below(limit) => format!("< {limit}{unit}"),
            Self::Above(limit) => format!("> {limit}{unit}"),
            Self::None => "–".to_owned(),
        }
    }
}

/// The number of a row that is compared with the limit.
enum Counts {
    /// The ratio to this name's.
    RatioTo(&'static str),
    /// The number itself, in this unit.
    Itself(Unit),
}

/// The source of a target's number.
struct Wanted {
    what: &'static str,
    workload: Workload,
    row: &'static str,
    of: &'static str,
    counts: Counts,
    bound: Bound,
}

const fn wanted(
    what: &'static str,
    workload: Workload,
    row: &'static str,
    to: &'static str,
    bound: Bound,
) -> Wanted {
    Wanted {
        what,
        workload,
        row,
        of: OURS,
        counts: Counts::RatioTo(to),
        bound,
    }
}

/// Of a pod in strict mode, beside one without.
const fn strict(what: &'static str, row: &'static str, bound: Bound) -> Wanted {
    Wanted {
        what,
        workload: Workload::Strict,
        row,
        of: STRICT,
        counts: Counts::RatioTo(NOT_STRICT),
        bound,
    }
}

/// A number of the programs of strict mode.
const fn strict_programs(
    what: &'static str,
    row: &'static str,
    of: &'static str,
    unit: Unit,
    bound: Bound,
) -> Wanted {
    Wanted {
        what,
        workload: Workload::Strict,
        row,
        of,
        counts: Counts::Itself(unit),
        bound,
    }
}

const TARGETS: [Wanted; 40] = [
    wanted(
        "connect p50, outbound / direct",
        Workload::Setup,
        "outbound, connect p50",
        DIRECT,
        Bound::AtMost(1.05),
    ),
    wanted(
        "connect p50, inbound / direct",
        Workload::Setup,
        "inbound, connect p50",
        DIRECT,
        Bound::AtMost(1.05),
    ),
    wanted(
        "connect p50 with 10,000 CIDRs / with none",
        Workload::Policy,
        "connect p50, 10000 CIDRs",
        "none",
        Bound::AtMost(1.05),
    ),
    wanted(
        "connect p50 with 1,000 ports / with none",
        Workload::Policy,
        "connect p50, 1000 ports",
        "none",
        Bound::AtMost(1.05),
    ),
    wanted(
        "sustained rate, client closes first / direct",
        Workload::Sustained,
        "rate",
        DIRECT,
        Bound::AtLeast(0.98),
    ),
    wanted(
        "open connection, 1 B, outbound / direct",
        Workload::Talk,
        "outbound, 1 B there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "open connection, 1 KiB, outbound / direct",
        Workload::Talk,
        "outbound, 1 KiB there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "open connection, 16 KiB, outbound / direct",
        Workload::Talk,
        "outbound, 16 KiB there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "bulk, outbound / direct",
        Workload::Talk,
        "outbound, bulk",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "open connection, 1 B, inbound / direct",
        Workload::Talk,
        "inbound, 1 B there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "open connection, 1 KiB, inbound / direct",
        Workload::Talk,
        "inbound, 1 KiB there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "open connection, 16 KiB, inbound / direct",
        Workload::Talk,
        "inbound, 16 KiB there and back",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    wanted(
        "bulk, inbound / direct",
        Workload::Talk,
        "inbound, bulk",
        DIRECT,
        Bound::AtLeast(0.99),
    ),
    Wanted {
        what: "all hooks of a connection, outbound (bpf_stats)",
        workload: Workload::Hooks,
        row: "outbound, all hooks of a connection",
        of: OURS,
        counts: Counts::Itself(Unit::Nanoseconds),
        bound: Bound::AtMost(1500.0),
    },
    Wanted {
        what: "the same, less the cost of bpf_stats itself",
        workload: Workload::Hooks,
        row: "outbound, all hooks of a connection, less the measuring",
        of: OURS,
        counts: Counts::Itself(Unit::Nanoseconds),
        bound: Bound::None,
    },
    Wanted {
        what: "all hooks of a connection, inbound (bpf_stats)",
        workload: Workload::Hooks,
        row: "inbound, all hooks of a connection",
        of: OURS,
        counts: Counts::Itself(Unit::Nanoseconds),
        bound: Bound::AtMost(1500.0),
    },
    Wanted {
        what: "connect by a process outside the mesh (bpf_stats)",
        workload: Workload::Hooks,
        row: "not in a mesh pod, all hooks of a connection",
        of: OURS,
        counts: Counts::Itself(Unit::Nanoseconds),
        bound: Bound::None,
    },
    strict(
        "strict mode: connect p50, outbound / not strict",
        "outbound, connect p50",
        Bound::AtMost(1.05),
    ),
    strict(
        "strict mode: connect p50, inbound / not strict",
        "inbound, connect p50",
        Bound::AtMost(1.05),
    ),
    strict(
        "strict mode: the proxy's open connection through eth0, 1 B / not strict",
        "from the proxy, 1 B there and back",
        Bound::AtLeast(0.95),
    ),
    strict(
        "strict mode: the same, bulk / not strict",
        "from the proxy, bulk",
        Bound::AtLeast(0.95),
    ),
    strict_programs(
        "strict mode: a packet that leaves (bpf_stats)",
        "icept_leave, a packet, less the measuring",
        STRICT,
        Unit::Nanoseconds,
        Bound::AtMost(150.0),
    ),
    strict_programs(
        "strict mode: a packet that enters (bpf_stats)",
        "icept_enter, a packet, less the measuring",
        STRICT,
        Unit::Nanoseconds,
        Bound::AtMost(150.0),
    ),
    Wanted {
        what: "beside it, not strict: the proxy's open connection, 1 B / direct",
        workload: Workload::Strict,
        row: "from the proxy, 1 B there and back",
        of: NOT_STRICT,
        counts: Counts::RatioTo(DIRECT),
        bound: Bound::AtLeast(0.99),
    },
    strict_programs(
        "beside it, not strict: runs of the program for packets that leave",
        "icept_leave, runs in a turn",
        NOT_STRICT,
        Unit::Count,
        Bound::AtMost(0.0),
    ),
    strict_programs(
        "beside it, not strict: runs of the program for packets that enter",
        "icept_enter, runs in a turn",
        NOT_STRICT,
        Unit::Count,
        Bound::AtMost(0.0),
    ),
    Wanted {
        what: "connect p50 with one observer / with none",
        workload: Workload::Observing,
        row: "outbound, connect p50",
        of: "one observer",
        counts: Counts::RatioTo("no observer"),
        bound: Bound::AtMost(1.10),
    },
    Wanted {
        what: "connections that an observer does not show",
        workload: Workload::Observing,
        row: "a burst, lost connections",
        of: "one observer",
        counts: Counts::Itself(Unit::Count),
        bound: Bound::AtMost(0.0),
    },
    Wanted {
        what: "an agent with a page and three observers, 1,000 connections/s: memory",
        workload: Workload::Observing,
        row: "a page and three observers, memory",
        of: "the agent",
        counts: Counts::Itself(Unit::Mebibytes),
        bound: Bound::AtMost(40.0),
    },
    Wanted {
        what: "its processor time in a second",
        workload: Workload::Observing,
        row: "a page and three observers, processor time in a second",
        of: "the agent",
        counts: Counts::Itself(Unit::CpuSeconds),
        bound: Bound::AtMost(0.05),
    },
    Wanted {
        what: "a node of 250 pods captured, from an agent's start",
        workload: Workload::Starting,
        row: "from its start until the last pod is captured",
        of: OURS,
        counts: Counts::Itself(Unit::Milliseconds),
        bound: Bound::AtMost(1000.0),
    },
    Wanted {
        what: "each of them, attached by the agent",
        workload: Workload::Starting,
        row: "attaching each",
        of: OURS,
        counts: Counts::Itself(Unit::Milliseconds),
        bound: Bound::AtMost(2.0),
    },
    wanted(
        "attach one pod / iptables-restore",
        Workload::Attaching,
        "the stock settings",
        IPTABLES,
        Bound::AtMost(0.1),
    ),
    wanted(
        "the same with 10,000 CIDRs",
        Workload::Attaching,
        "10,000 CIDRs",
        IPTABLES,
        Bound::AtMost(0.1),
    ),
    Wanted {
        what: "getsockopt outside mesh pods / without Interceptor",
        workload: Workload::Getsockopt,
        row: "one call",
        of: "outside mesh pods",
        counts: Counts::RatioTo("without Interceptor"),
        bound: Bound::AtMost(1.01),
    },
    Wanted {
        what: "getsockopt inside a mesh pod / without Interceptor",
        workload: Workload::Getsockopt,
        row: "one call",
        of: "inside a mesh pod",
        counts: Counts::RatioTo("without Interceptor"),
        bound: Bound::None,
    },
    wanted(
        "HTTP, open connections, requests/s / iptables",
        Workload::Http,
        "open connections, requests",
        IPTABLES,
        Bound::Above(1.0),
    ),
    wanted(
        "HTTP, open connections, p99 / iptables",
        Workload::Http,
        "open connections, p99",
        IPTABLES,
        Bound::Below(1.0),
    ),
    wanted(
        "HTTP, new connections, requests/s / iptables",
        Workload::Http,
        "a connection for each request, requests",
        IPTABLES,
        Bound::Above(1.0),
    ),
    wanted(
        "HTTP, new connections, p99 / iptables",
        Workload::Http,
        "a connection for each request, p99",
        IPTABLES,
        Bound::Below(1.0),
    ),
];

/// Compares the results with the targets.
pub(super) fn judge(sections: &[Section]) -> Vec<Target> {
    TARGETS
        .iter()
        .map(|wanted| wanted.judge(sections))
        .collect()
}

impl Wanted {
    fn judge(&self, sections: &[Section]) -> Target {
        let title = self.workload.title();
        let row = sections
            .iter()
            .find(|section| section.title == title)
            .and_then(|section| section.row(self.row));
        let find = |of| {
            row.and_then(|row| match self.counts {
                Counts::RatioTo(to) => row.ratio(of, to),
                Counts::Itself(_) => row.value(of),
            })
        };
        let measured = find(self.of);
        let unit = match self.counts {
            Counts::RatioTo(_) => None,
            Counts::Itself(unit) => Some(unit),
        };
        let verdict = measured.map_or(Verdict::NotMeasured, |measured| {
            self.bound.judge(measured.median)
        });
        Target {
            what: self.what.to_owned(),
            wanted: self.bound.text(unit),
            measured,
            iptables: find(IPTABLES),
            unit,
            verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Row, *};

    fn section(ours: f64) -> Section {
        let numbers = [(DIRECT, 10.0), (IPTABLES, 15.0), (OURS, ours)]
            .map(|(name, number)| (name.to_owned(), vec![number]));
        let row = Row::against_first("outbound, connect p50", Unit::Microseconds, &numbers);
        Section {
            title: Workload::Setup.title().to_owned(),
            rows: vec![row],
            ..Section::default()
        }
    }

    #[test]
    fn a_target_is_met_or_missed_by_the_median() {
        assert_eq!(judge(&[section(10.4)])[0].verdict, Verdict::Met);
        let missed = &judge(&[section(10.6)])[0];
        assert_eq!(missed.verdict, Verdict::Missed);
        let iptables = missed.iptables.expect("its ratio");
        assert!((iptables.median - 1.5).abs() < 1e-9);
    }

    #[test]
    fn an_unmeasured_target_is_not_met() {
        let targets = judge(&[section(10.0)]);
        assert_eq!(targets[1].verdict, Verdict::NotMeasured);
        assert_eq!(targets.len(), TARGETS.len());
    }
}
