//! Setting up connections.

use anyhow::{Result, bail};

use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    charts::Chart,
    load::{LoadReply, LoadRequest},
    pod::stock,
    rounds::take_turns,
    summary::quantile,
};

/// The results of a turn.
pub(super) struct Turn {
    /// The median of microseconds per call.
    pub(super) p50: f64,
    /// The 99th percentile.
    pub(super) p99: f64,
    /// Connections per second.
    pub(super) rate: f64,
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pods = Pod::each(&Contestant::ALL, &stock())?;
    let mut rows = Vec::new();
    for direction in Direction::BOTH {
        let turns = take_turns(scale.rounds, &pods, |pod| {
            connect(pod, direction, scale.connects)
        })?;
        let name = direction.name();
        let mut add = |what, unit, number: fn(&Turn) -> f64| {
            let numbers = turns.numbers(number);
            rows.push(Row::against_first(
                format!("{name}, {what}"),
                unit,
                &numbers,
            ));
        };
        add("connect p50", Unit::Microseconds, |turn| turn.p50);
        add("connect p99", Unit::Microseconds, |turn| turn.p99);
        add("rate", Unit::PerSecond, |turn| turn.rate);
    }
    Ok(Section {
        method: format!(
            "One client connects {} times a turn, one connection after the other, and resets each; \
             {} rounds. Timed is connect(2) alone, by CLOCK_MONOTONIC; the rate counts everything. \
             Client and proxy have a processor each.",
            scale.connects, scale.rounds
        ),
        charts: vec![Chart::bars(
            "connect",
            "connect(2), median",
            "µs",
            &rows,
            &["outbound, connect p50", "inbound, connect p50"],
        )],
        rows,
        ..Section::default()
    })
}

/// Runs a turn.
pub(super) fn connect(pod: &Pod, direction: Direction, count: usize) -> Result<Turn> {
    let to = pod.destination(direction);
    let LoadReply::Times { connects, all } =
        pod.call(direction, &LoadRequest::Connect { to, count })?
    else {
        bail!("no times");
    };
    let microseconds: Vec<f64> = connects
        .iter()
        .map(|nanoseconds| f64::from(*nanoseconds) / 1e3)
        .collect();
    #[expect(
        clippy::cast_precision_loss,
        reason = "some thousands, some milliseconds"
    )]
    let rate = count as f64 / (all as f64 / 1e9);
    Ok(Turn {
        p50: quantile(&microseconds, 0.5),
        p99: quantile(&microseconds, 0.99),
        rate,
    })
}
