//! Requests and bulk data on an open connection.

use anyhow::{Result, bail};

use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    charts::Chart,
    load::{LoadReply, LoadRequest, Worker},
    pod::stock,
    rounds::take_turns,
};

const SIZES: [(usize, &str); 3] = [(1, "1 B"), (1 << 10, "1 KiB"), (1 << 14, "16 KiB")];
pub(super) const GIGABITS: f64 = 8e-9;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pods = Pod::each(&Contestant::ALL, &stock())?;
    for (_, pod) in &pods {
        pod.share_processor()?;
    }
    let milliseconds = scale.turn_milliseconds;
    let mut rows = Vec::new();
    for direction in Direction::BOTH {
        let name = direction.name();
        for (size, text) in SIZES {
            let turns = take_turns(scale.rounds, &pods, |pod| {
                let to = pod.destination(direction);
                let request = LoadRequest::Exchange {
                    to,
                    size,
                    milliseconds,
                };
                rate(pod.dialler(direction), &request)
            })?;
            let what = format!("{name}, {text} there and back");
            let numbers = turns.numbers(|rate| *rate);
            rows.push(Row::against_first(what, Unit::PerSecond, &numbers));
        }
        let turns = take_turns(scale.rounds, &pods, |pod| {
            let to = pod.destination(direction);
            rate(
                pod.dialler(direction),
                &LoadRequest::Pour { to, milliseconds },
            )
        })?;
        let numbers = turns.numbers(|bytes| bytes * GIGABITS);
        let what = format!("{name}, bulk");
        rows.push(Row::against_first(what, Unit::GigabitsPerSecond, &numbers));
    }
    Ok(Section {
        method: format!(
            "Turns of {milliseconds} ms, {} rounds. The proxy echoes the bytes, or only reads \
             them; it shares the client's processor, so that a rate shows the work on one.",
            scale.rounds
        ),
        charts: vec![Chart::bars(
            "bulk",
            "Bulk throughput",
            "Gbit/s",
            &rows,
            &["outbound, bulk", "inbound, bulk"],
        )],
        rows,
        ..Section::default()
    })
}

pub(super) fn rate(client: &Worker, request: &LoadRequest) -> Result<f64> {
    match client.call(request)? {
        LoadReply::PerSecond(rate) => Ok(rate),
        other => bail!("{other:?}"),
    }
}
