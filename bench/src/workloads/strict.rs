//! Strict mode: its cost in a pod that has it, and in a pod beside that does not.

use std::net::SocketAddr;

use anyhow::Result;
use interceptor_testkit::{
    bpf::stats::{Counting, runs},
    settings::{Settings, Strict},
    users::{PROXY, ROOT},
};

use super::{
    hooks::{DOES_NOTHING, PREFIX, Work, nothing, work_between},
    setup::connect,
    talk::{GIGABITS, rate},
};
use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit,
    environment::cpus,
    load::{LoadRequest, Worker},
    pod::stock,
    results::Numbers,
    rounds::{Rounds, take_turns},
};

/// The names in the results, beside that of the pod without interception.
const OFF: &str = "not strict";
const ON: &str = "strict";

/// The programs at a pod's interface.
const PROGRAMS: [&str; 2] = ["icept_leave", "icept_enter"];

/// The server that the proxies dial.
const PORT: u16 = 80;

type Pods = [(String, TalkingPod)];

/// A pod whose proxy talks to a server outside.
struct TalkingPod {
    pod: Pod,
    proxy: Worker,
    _remote: Worker,
}

impl TalkingPod {
    fn new(contestant: Contestant, strict: Strict) -> Result<Self> {
        let pod = Pod::new(contestant, &Settings { strict, ..stock() })?;
        let cgroup = |name| pod.cgroup().child(name);
        let proxy = Worker::start("proxy", PROXY, pod.netns(), &cgroup("pod/client")?, &[])?;
        let remote = Worker::start("remote", ROOT, pod.peer(), &cgroup("peer")?, &[PORT])?;
        if let Some(cpu) = cpus()?.first() {
            remote.call(&LoadRequest::Stay(*cpu))?;
        }
        Ok(Self {
            pod,
            proxy,
            _remote: remote,
        })
    }
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pods = [
        (Contestant::Direct.name(), Contestant::Direct, Strict::Off),
        (OFF, Contestant::Interceptor, Strict::Off),
        (ON, Contestant::Interceptor, Strict::All),
    ];
    let pods: Vec<_> = pods
        .into_iter()
        .map(|(name, contestant, strict)| {
            Ok((name.to_owned(), TalkingPod::new(contestant, strict)?))
        })
        .collect::<Result<_>>()?;
    let mut rows = connecting(scale, &pods)?;
    rows.extend(talking(scale, &pods)?);
    rows.extend(programs(scale, &pods)?);
    Ok(Section {
        method: format!(
            "Three pods beside each other: without interception, captured, and captured in strict \
             mode (`all`). First as in \"Setting up connections\". Then the proxy has a connection \
             to a server outside the pod, in turns of {} ms, {} rounds; both share a processor. All \
             its packets cross the pod's `eth0`, where strict mode has its programs, on the node's \
             side. The programs' time is counted by `bpf_stats`, less the time of a program that \
             does nothing.",
            scale.turn_milliseconds, scale.rounds
        ),
        rows,
        ..Section::default()
    })
}

/// With the ratios to the pod without interception, and that of the captured pods.
fn compared(what: &str, unit: Unit, numbers: &[Numbers]) -> Row {
    let row = Row::against_first(what, unit, numbers);
    match numbers {
        [_, off, on] => row.with_ratio(on, off),
        _ => row,
    }
}

fn connecting(scale: &Scale, pods: &Pods) -> Result<Vec<Row>> {
    let row = |direction: Direction| {
        let turns = take_turns(scale.rounds, pods, |pod| {
            connect(&pod.pod, direction, scale.connects)
        })?;
        let what = format!("{}, connect p50", direction.name());
        let numbers = turns.numbers(|turn| turn.p50);
        Ok(compared(&what, Unit::Microseconds, &numbers))
    };
    Direction::BOTH.into_iter().map(row).collect()
}

fn exchange(scale: &Scale) -> LoadRequest {
    LoadRequest::Exchange {
        to: remote(),
        size: 1,
        milliseconds: scale.turn_milliseconds,
    }
}

fn remote() -> SocketAddr {
    ([10, 2, 0, 9], PORT).into()
}

fn talking(scale: &Scale, pods: &Pods) -> Result<[Row; 2]> {
    let turns = |request| take_turns(scale.rounds, pods, |pod| rate(&pod.proxy, &request));
    let exchanged = turns(exchange(scale))?.numbers(|rate| *rate);
    let poured = turns(LoadRequest::Pour {
        to: remote(),
        milliseconds: scale.turn_milliseconds,
    })?
    .numbers(|bytes| bytes * GIGABITS);
    let what = "from the proxy, 1 B there and back";
    Ok([
        compared(what, Unit::PerSecond, &exchanged),
        compared("from the proxy, bulk", Unit::GigabitsPerSecond, &poured),
    ])
}

/// What the programs do while each pod's proxy talks.
fn programs(scale: &Scale, pods: &Pods) -> Result<Vec<Row>> {
    let _counting = Counting::start()?;
    let any = &pods[0].1.pod;
    let nothing = nothing(any, scale)?.value(DOES_NOTHING);
    let measuring = nothing.map_or(0.0, |run| run.median);
    let request = exchange(scale);
    let turns = take_turns(scale.rounds, pods, |pod| {
        let before = runs(PREFIX)?;
        rate(&pod.proxy, &request)?;
        Ok(work_between(&before, &runs(PREFIX)?))
    })?;
    let rows = PROGRAMS.map(|program| describe(program, &turns, measuring));
    Ok(rows.into_iter().flatten().collect())
}

/// A program's runs, and the time of one.
fn describe(program: &str, turns: &Rounds<Work>, measuring: f64) -> [Row; 2] {
    let of = |work: &Work| work.get(program).copied().unwrap_or_default();
    let runs = turns.numbers(|work| of(work).0);
    let mut times = turns.numbers(|work| {
        let (runs, time) = of(work);
        time / runs - measuring
    });
    times.retain(|(name, _)| name == ON);
    let what = format!("{program}, a packet, less the measuring");
    [
        Row::new(format!("{program}, runs in a turn"), Unit::Count, &runs),
        Row::new(what, Unit::Nanoseconds, &times),
    ]
}
