//! The cost of observers for connections and for the agent, and whether they get every connection.

mod agent;
mod observer;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use self::observer::Observer;
use super::setup::{Turn, connect};
use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit, pod::stock, results::Numbers,
    rounds::take_turns,
};

/// The names in the results.
const UNOBSERVED: &str = "no observer";
const OBSERVED: &str = "one observer";

/// The connections of a burst, in turns.
const BURST: usize = 100;
/// Time limit of the last line of a burst.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pod = Pod::new(Contestant::Interceptor, &stock())?;
    let subjects = [UNOBSERVED, OBSERVED].map(|name| (name.to_owned(), name == OBSERVED));
    let turns = take_turns(scale.rounds, &subjects, |is_observed| {
        let _observer = is_observed.then(|| Observer::start(&pod)).transpose()?;
        connect(&pod, Direction::Outbound, scale.connects)
    })?;
    let against = |what: &str, unit, number: fn(&Turn) -> f64| {
        Row::against_first(format!("outbound, {what}"), unit, &turns.numbers(number))
    };
    let burst = BURST * scale.connects;
    let (rate, lost) = burst_of(&pod, burst)?;
    let one = |what: &str, unit, number| {
        let numbers: [Numbers; 1] = [(OBSERVED.to_owned(), vec![number])];
        Row::new(what, unit, &numbers)
    };
    Ok(Section {
        method: format!(
            "As in \"Setting up connections\", with and without `interceptor observe -o json` for \
             the pod, whose output a thread of the benchmark reads. Then {burst} connections as \
             fast as one client can make them, with an observer: all that are not in its output are \
             lost. Client, proxy, observer and its reader share the processors. {}",
            agent::METHOD
        ),
        rows: [
            against("connect p50", Unit::Microseconds, |turn| turn.p50),
            against("connect p99", Unit::Microseconds, |turn| turn.p99),
            against("rate", Unit::PerSecond, |turn| turn.rate),
            one("a burst, rate", Unit::PerSecond, rate),
            one("a burst, lost connections", Unit::Count, lost),
        ]
        .into_iter()
        .chain(agent::run(scale)?)
        .collect(),
        ..Section::default()
    })
}

/// The rate of a burst, and the connections that its observer did not show.
fn burst_of(pod: &Pod, count: usize) -> Result<(f64, f64)> {
    let observer = Observer::start(pod)?;
    let before = observer.shown();
    let turn = connect(pod, Direction::Outbound, count)?;
    let start = Instant::now();
    let count = u64::try_from(count)?;
    while observer.shown() - before < count && start.elapsed() < TIMEOUT {
        thread::sleep(POLL_INTERVAL);
    }
    let lost = u32::try_from(count.saturating_sub(observer.shown() - before))?;
    Ok((turn.rate, lost.into()))
}
