//! The run time of the programs, counted by the kernel.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    bpf::{
        programs::{Action, AttachType, Mode, Program},
        stats::{Counting, Run, runs},
    },
    users::APP,
};

use super::setup::connect;
use crate::{
    Contestant, Direction, Pod, Row, Scale, Section, Unit, load::LoadRequest, pod::stock,
    results::Numbers,
};

/// The prefix of the names of our programs.
pub(super) const PREFIX: &str = "icept_";
/// The program that does nothing.
const NOTHING: &str = "bench_nothing";
/// Its name in the results.
pub(super) const DOES_NOTHING: &str = "a program that does nothing";
/// The time in which the proxy finishes with a connection.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// By program: the number of runs and their duration.
pub(super) type Work = BTreeMap<String, (f64, f64)>;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let counting = Counting::start().context("BPF_ENABLE_STATS")?;
    let pod = Pod::new(Contestant::Interceptor, &stock())?;
    let nothing = nothing(&pod, scale)?;
    let one_run = nothing.value(DOES_NOTHING).map_or(0.0, |run| run.median);
    let mut rows = vec![nothing];
    for direction in Direction::BOTH {
        let rounds = watch(scale, || connect(&pod, direction, scale.connects).map(drop))?;
        rows.extend(describe(direction.name(), &rounds, one_run));
    }
    let direct = Pod::new(Contestant::Direct, &stock())?;
    let outsider = direct.worker_at(APP, &pod.pod_cgroup()?)?;
    let to = direct.destination(Direction::Outbound);
    let request = LoadRequest::Connect {
        to,
        count: scale.connects,
    };
    let rounds = watch(scale, || outsider.call(&request).map(drop))?;
    rows.extend(describe("not in a mesh pod", &rounds, one_run));
    drop(counting);
    Ok(Section {
        method: "`bpf_stats`: the kernel reads the clock before and after each run of a program, \
                 and the numbers include that: the first row is the time of a program that does \
                 nothing, and \"less the measuring\" subtracts it for each run. A connection is \
                 connect(2), accept(2), SO_ORIGINAL_DST as a proxy reads it, and a reset. \"Not in \
                 a mesh pod\": a process in a cgroup that the hooks are attached to, in a network \
                 namespace that is not captured."
            .to_owned(),
        rows,
        ..Section::default()
    })
}

/// The run time of a program that does nothing.
pub(super) fn nothing(pod: &Pod, scale: &Scale) -> Result<Row> {
    let program = Program::load(NOTHING, AttachType::Connect4, Action::CountOnly)?;
    program.attach(&pod.pod_cgroup()?, Mode::Multiple)?;
    let mut numbers = Vec::new();
    for _ in 0..scale.rounds {
        let before = runs(NOTHING)?;
        connect(pod, Direction::Outbound, scale.connects)?;
        let work = work_between(&before, &runs(NOTHING)?);
        numbers.extend(work.values().map(|(count, time)| time / count));
    }
    program.detach(&pod.pod_cgroup()?)?;
    let numbers = [(DOES_NOTHING.to_owned(), numbers)];
    Ok(Row::new("one run", Unit::Nanoseconds, &numbers))
}

/// The programs' runs per connection, round by round.
fn watch(scale: &Scale, connect: impl Fn() -> Result<()>) -> Result<Vec<Work>> {
    let connections = f64::from(u32::try_from(scale.connects)?);
    connect()?;
    (0..scale.rounds)
        .map(|_| {
            thread::sleep(SETTLE_TIME);
            let before = runs(PREFIX)?;
            connect()?;
            thread::sleep(SETTLE_TIME);
            let mut work = work_between(&before, &runs(PREFIX)?);
            for (count, time) in work.values_mut() {
                *count /= connections;
                *time /= connections;
            }
            // Includes programs of other pods, if the machine has any.
            work.retain(|_, (count, _)| *count > 0.5);
            Ok(work)
        })
        .collect()
}

pub(super) fn work_between(before: &[Run], after: &[Run]) -> Work {
    let mut work = Work::new();
    for run in after {
        let earlier = before.iter().find(|earlier| earlier.id == run.id);
        let (count, time) = earlier.map_or((0, 0), |run| (run.count, run.nanoseconds));
        let entry = work.entry(run.name.clone()).or_default();
        #[expect(clippy::cast_precision_loss, reason = "some milliseconds")]
        let (count, time) = ((run.count - count) as f64, (run.nanoseconds - time) as f64);
        entry.0 += count;
        entry.1 += time;
    }
    work.retain(|_, (count, _)| *count > 0.0);
    work
}

/// A row for all programs, one for them without the measurement's own cost, which is `one_run` per
/// run, and one for each program.
fn describe(whose: &str, rounds: &[Work], one_run: f64) -> Vec<Row> {
    let interceptor =
        |numbers| -> [Numbers; 1] { [(Contestant::Interceptor.to_string(), numbers)] };
    let all = |measuring: f64| {
        let all = |work: &Work| {
            work.values()
                .map(|(count, time)| time - count * measuring)
                .sum()
        };
        interceptor(rounds.iter().map(all).collect())
    };
    let what = format!("{whose}, all hooks of a connection");
    let less = format!("{what}, less the measuring");
    let mut rows = vec![
        Row::new(what, Unit::Nanoseconds, &all(0.0)),
        Row::new(less, Unit::Nanoseconds, &all(one_run)),
    ];
    let Some(last) = rounds.last() else {
        return rows;
    };
    for (name, (count, _)) in last {
        let of_name = rounds.iter().filter_map(|work| work.get(name));
        let times = of_name.map(|(_, time)| *time).collect();
        let what = format!("{whose}, {name}, {count:.1} runs a connection");
        rows.push(Row::new(what, Unit::Nanoseconds, &interceptor(times)));
    }
    rows
}
