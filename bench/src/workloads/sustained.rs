//! Setting up connections for longer than closed ones stay in `TIME_WAIT`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    charts::{Chart, Line},
    load::{LoadReply, LoadRequest},
    pod::stock,
    results::Numbers,
};

/// After this many seconds the first of the closed connections have left `TIME_WAIT`.
const TIME_WAIT: usize = 60;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let seconds = scale.sustained_seconds;
    let pods = Pod::each(&Contestant::ALL, &stock())?;
    // All at once: each has the same share of the processors in every second.
    for (_, pod) in &pods {
        let to = pod.destination(Direction::Outbound);
        let request = LoadRequest::Sustain { to, seconds };
        pod.dialler(Direction::Outbound).send(&request)?;
    }
    let mut rates: Vec<Numbers> = Vec::new();
    let mut notes = Vec::new();
    for (name, pod) in &pods {
        let outcome = pod.dialler(Direction::Outbound).receive()?;
        let LoadReply::Seconds { done, errors } = outcome else {
            bail!("{outcome:?}");
        };
        rates.push((name.clone(), done.into_iter().map(f64::from).collect()));
        notes.extend(note(name, &errors));
    }
    let mut rows = vec![Row::against_first("rate", Unit::PerSecond, &rates)];
    if seconds > TIME_WAIT {
        let later: Vec<Numbers> = rates
            .iter()
            .map(|(name, rates)| (name.clone(), rates[TIME_WAIT..].to_vec()))
            .collect();
        let what = "rate, once connections are forgotten";
        rows.push(Row::against_first(what, Unit::PerSecond, &later));
    }
    if seconds < 2 * TIME_WAIT {
        notes.push(format!(
            "Too short: {seconds} s instead of more than {}.",
            2 * TIME_WAIT
        ));
    }
    Ok(Section {
        method: format!(
            "A client in each pod connects, sends a byte, reads it back and closes first, to one \
             destination, for {seconds} s. The pods do so at the same time and share the \
             processors, so that a second is the same second for all; ratios are of rates in the \
             same second. A client pauses for 1 ms after an error."
        ),
        charts: vec![Chart::lines(
            "sustained",
            "Short connections to one destination, the client closes first",
            ("s", "connections/s"),
            false,
            lines(&rates),
        )],
        rows,
        notes,
        ..Section::default()
    })
}

fn note(name: &str, errors: &BTreeMap<String, u64>) -> Vec<String> {
    errors
        .iter()
        .map(|(error, count)| format!("{name}: {count} times {error}."))
        .collect()
}

fn lines(rates: &[Numbers]) -> Vec<Line> {
    let line = |(name, rates): &Numbers| Line {
        name: name.clone(),
        points: (0_u32..)
            .map(f64::from)
            .zip(rates.iter().copied())
            .collect(),
    };
    rates.iter().map(line).collect()
}
