//! CPU time.

use anyhow::Result;

use super::setup::connect;
use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit, pod::stock, rounds::take_turns,
};

/// The number of connections per reported CPU time.
const CONNECTIONS: f64 = 10_000.0;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pods = Pod::each(&Contestant::ALL, &stock())?;
    let count = 2 * scale.connects;
    let mut rows = Vec::new();
    for direction in Direction::BOTH {
        let turns = take_turns(scale.rounds, &pods, |pod| {
            let before = pod.used()?;
            connect(pod, direction, count)?;
            Ok(pod.used()? - before)
        })?;
        let share = CONNECTIONS / f64::from(u32::try_from(count)?);
        let numbers = turns.numbers(|seconds| seconds * share);
        let what = format!("{}, 10,000 connections", direction.name());
        rows.push(Row::against_first(what, Unit::CpuSeconds, &numbers));
    }
    Ok(Section {
        method: format!(
            "getrusage(2) of client and proxy over {count} connections a turn, {} rounds. The \
             packets of a connection on one machine are handled by softirqs at the end of the \
             sender's system calls, and the kernel counts that time as the sender's, unless it is \
             built with CONFIG_IRQ_TIME_ACCOUNTING. The time of ksoftirqd is not included.",
            scale.rounds
        ),
        rows,
        ..Section::default()
    })
}
