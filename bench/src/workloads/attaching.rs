//! Attaching a pod, compared with restoring the rules of the same settings.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_testkit::{
    bpf::pins,
    command::{bounded, run as run_command},
    interceptor, rules,
    settings::Settings,
};

use super::policy::with_cidrs;
use crate::{
    Contestant, Pod, Row, Scale, Section, Unit,
    pod::{attach, stock},
    rounds::take_turns,
};

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let mut rows = first(&pins::dir())?.into_iter().collect::<Vec<_>>();
    // So that it is never the first pod on the machine.
    let _other = Pod::without_proxy(Contestant::Interceptor, &stock())?;
    let pods = Contestant::INTERCEPTING
        .iter()
        .map(|contestant| {
            let pod = Pod::without_proxy(Contestant::Direct, &stock())?;
            Ok((contestant.to_string(), (*contestant, pod)))
        })
        .collect::<Result<Vec<_>>>()?;
    let starts = take_turns(scale.attaches, &pods, |(contestant, _)| {
        only_start(*contestant)
    })?;
    let numbers = starts.numbers(|time| time.as_secs_f64() * 1e3);
    let what = "printing the version";
    rows.push(Row::against_first(what, Unit::Milliseconds, &numbers));
    for (what, settings) in [
        ("the stock settings", stock()),
        ("10,000 CIDRs", with_cidrs(10_000)),
    ] {
        let turns = take_turns(scale.attaches, &pods, |(contestant, pod)| {
            put_in_force(*contestant, pod, &settings)
        })?;
        let numbers = turns.numbers(|time| time.as_secs_f64() * 1e3);
        rows.push(Row::against_first(what, Unit::Milliseconds, &numbers));
    }
    Ok(Section {
        method: format!(
            "From the start of the command to its exit, {} rounds, on a node that has another pod \
             attached. \"The first\": on a node without one, where all programs are loaded. \
             \"Printing the version\" is the cost of starting a command.",
            scale.attaches
        ),
        rows,
        ..Section::default()
    })
}

/// The first attach on a machine, if nothing is attached to it.
fn first(pins: &Path) -> Result<Option<Row>> {
    if pins.exists() {
        return Ok(None);
    }
    let pod = Pod::without_proxy(Contestant::Direct, &stock())?;
    let time = put_in_force(Contestant::Interceptor, &pod, &stock())?;
    let numbers = [(
        Contestant::Interceptor.to_string(),
        vec![time.as_secs_f64() * 1e3],
    )];
    Ok(Some(Row::new("the first", Unit::Milliseconds, &numbers)))
}

/// The duration of a command of the contestant that does nothing.
fn only_start(contestant: Contestant) -> Result<Duration> {
    let mut command = if contestant == Contestant::Iptables {
        bounded("iptables-restore")
    } else {
        bounded(interceptor::binary())
    };
    let start = Instant::now();
    run_command(command.arg("--version"), "")?;
    Ok(start.elapsed())
}

/// The duration of attaching. Reverted when this returns.
fn put_in_force(contestant: Contestant, pod: &Pod, settings: &Settings) -> Result<Duration> {
    let start = Instant::now();
    if contestant == Contestant::Iptables {
        rules::apply(pod.netns(), settings, false)?;
        let took = start.elapsed();
        let flush = || run_command(&mut bounded("iptables-restore"), "*nat\nCOMMIT\n");
        pod.netns().enter(flush)?;
        return Ok(took);
    }
    attach(pod.netns().path(), &pod.pod_cgroup()?, settings)?;
    let took = start.elapsed();
    interceptor::detach(pod.netns().path())?;
    Ok(took)
}
