//! Policies with many CIDRs and ports.

use anyhow::Result;
use interceptor_testkit::settings::Settings;

use super::setup::connect;
use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    charts::{Chart, Line},
    pod::stock,
    results::Numbers,
    rounds::take_turns,
};

/// The kind of a policy's entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Cidrs(usize),
    Ports(usize),
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let cidrs = scale.cidrs.iter().copied().map(Listed::Cidrs);
    let ports = scale.ports.iter().copied().map(Listed::Ports);
    let lists: Vec<Listed> = cidrs.chain(ports).collect();
    let mut pods = Vec::new();
    for list in &lists {
        pods.extend(Pod::each(&Contestant::INTERCEPTING, &list.settings())?);
    }
    let turns = take_turns(scale.rounds, &pods, |pod| {
        connect(pod, Direction::Outbound, scale.connects)
    })?;
    let numbers = turns.numbers(|turn| turn.p50);
    let columns: Vec<&[Numbers]> = numbers.chunks(Contestant::INTERCEPTING.len()).collect();
    let rows: Vec<Row> = lists
        .iter()
        .zip(&columns)
        .map(|(list, column)| row(list.name(), column, columns[0]))
        .collect();
    Ok(Section {
        method: "Captured outbound connections of pods whose policy excludes this many CIDRs or \
                 ports, none of which match: the last rule applies. Ratios to the same \
                 contestant's pod that excludes none."
            .to_owned(),
        charts: vec![Chart::lines(
            "cidrs",
            "connect(2) as the policy grows, median",
            ("excluded CIDRs", "µs"),
            true,
            lines(&lists, &columns),
        )],
        rows,
        ..Section::default()
    })
}

fn row(name: String, numbers: &[Numbers], none: &[Numbers]) -> Row {
    let row = Row::new(name, Unit::Microseconds, numbers);
    numbers.iter().zip(none).fold(row, |row, (own, none)| {
        row.with_ratio(own, &("none".to_owned(), none.1.clone()))
    })
}

fn lines(lists: &[Listed], columns: &[&[Numbers]]) -> Vec<Line> {
    Contestant::INTERCEPTING
        .iter()
        .enumerate()
        .map(|(index, contestant)| Line {
            name: contestant.to_string(),
            points: lists
                .iter()
                .zip(columns)
                .filter_map(|(list, column)| match list {
                    Listed::Cidrs(count) => Some((*count, column)),
                    Listed::Ports(_) => None,
                })
                .map(|(count, column)| {
                    let median = crate::summary::quantile(&column[index].1, 0.5);
                    // A logarithmic axis has no zero.
                    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
                    (f64::from(count), median)
                })
                .collect(),
        })
        .collect()
}

impl Listed {
    fn name(self) -> String {
        match self {
            Self::Cidrs(count) => format!("connect p50, {count} CIDRs"),
            Self::Ports(count) => format!("connect p50, {count} ports"),
        }
    }

    fn settings(self) -> Settings {
        match self {
            Self::Cidrs(count) => with_cidrs(count),
            Self::Ports(count) => Settings {
                outbound_excluded_ports: (20_000..20_000 + count)
                    .map(|port| port.to_string())
                    .collect::<Vec<_>>()
                    .join(",")
                    .leak(),
                ..stock()
            },
        }
    }
}

/// The stock settings with this many excluded CIDRs, none of them in use here. (They are as short
/// as possible: an argument of a program is limited to 128 KiB.)
pub(super) fn with_cidrs(count: usize) -> Settings {
    let cidr = |number: usize| {
        let (a, b, c) = (number / 484, number / 22 % 22, number % 22);
        // Without 10.0.0.0/8.
        let a = if a < 9 { a + 1 } else { a + 2 };
        format!("{a}.{b}.{c}.0/24")
    };
    let cidrs: Vec<String> = (0..count).map(cidr).collect();
    Settings {
        outbound_excluded_cidrs: cidrs.join(",").leak(),
        ..stock()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ten_thousand_cidrs_differ_and_fit_into_an_argument() {
        let list = with_cidrs(10_000).outbound_excluded_cidrs;
        assert!(list.len() < 128 * 1024, "{}", list.len());
        let cidrs: BTreeSet<&str> = list.split(',').collect();
        assert_eq!(cidrs.len(), 10_000);
        assert!(!cidrs.iter().any(|cidr| cidr.starts_with("10.")));
    }
}
