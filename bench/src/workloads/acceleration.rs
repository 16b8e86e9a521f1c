//! The benefits of socket acceleration (a sockmap between app and proxy), and what it breaks.
//!
//! Interceptor has none. This shows the reason, on the current kernel.

mod connection;
mod probes;

use anyhow::Result;
use connection::Connection;
use interceptor_testkit::netns::Netns;

use crate::{
    Row, Scale, Section, Unit,
    charts::{Chart, Line},
    results::Numbers,
    rounds::{Rounds, take_turns},
};

const SIZES: [(usize, &str); 6] = [
    (1, "1 B"),
    (64, "64 B"),
    (1 << 10, "1 KiB"),
    (1 << 12, "4 KiB"),
    (1 << 14, "16 KiB"),
    (1 << 16, "64 KiB"),
];
const GIGABITS: f64 = 8e-9;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    // App and proxy communicate over the loopback interface of their pod only.
    let netns = Netns::new("accelerated", None)?;
    netns.enter(|| measure(scale))
}

fn measure(scale: &Scale) -> Result<Section> {
    let subjects = [
        ("loopback TCP".to_owned(), Connection::plain()?),
        ("sockmap".to_owned(), Connection::accelerated()?),
    ];
    let mut rows = Vec::new();
    let mut lines = vec![Vec::new(), Vec::new()];
    for (size, text) in SIZES {
        let there_and_back = take_turns(scale.rounds, &subjects, |connection| {
            connection.exchange(size, scale.turn_milliseconds)
        })?;
        let one_way = take_turns(scale.rounds, &subjects, |connection| {
            connection.pour(size, scale.turn_milliseconds)
        })?;
        let exchanges = per_second(&there_and_back);
        let what = format!("{text} there and back");
        rows.push(Row::against_first(what, Unit::PerSecond, &exchanges));
        let poured = one_way.numbers(|bytes| bytes * GIGABITS);
        let what = format!("one way, {text} at a time");
        let poured = Row::against_first(what, Unit::GigabitsPerSecond, &poured);
        for (points, row) in lines.iter_mut().zip([rows.last(), Some(&poured)]) {
            let ratio = row.and_then(|row| row.ratio("sockmap", "loopback TCP"));
            points.extend(
                ratio.map(|ratio| (f64::from(u32::try_from(size).unwrap_or(0)), ratio.median)),
            );
        }
        rows.push(poured);
    }
    let names = ["there and back", "one way"];
    let lines = names.into_iter().zip(lines).map(|(name, points)| Line {
        name: name.to_owned(),
        points,
    });
    Ok(Section {
        method: format!(
            "Not a part of Interceptor. Two threads communicate over a TCP connection on `lo`, as \
             app and proxy do; for a second such connection a `sk_msg` program puts the bytes of \
             each end directly into the other's queue. Turns of {} ms, {} rounds. Below are the \
             differences that programs can observe.",
            scale.turn_milliseconds, scale.rounds
        ),
        charts: vec![Chart::lines(
            "acceleration",
            "sockmap / loopback TCP, by message size",
            ("bytes in a message", "ratio"),
            true,
            lines.collect(),
        )],
        rows,
        notes: probes::all()?,
        ..Section::default()
    })
}

fn per_second(rounds: &Rounds<f64>) -> Vec<Numbers> {
    rounds.numbers(|rate| *rate)
}
