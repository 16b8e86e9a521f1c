//! Attaching many pods.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_testkit::{
    cgroup::Cgroup,
    interceptor,
    janitor::{self, Task},
    netns::Netns,
};

use crate::{
    Contestant, Row, Scale, Section, Unit,
    charts::{Chart, Line},
    pod::{attach, stock},
};

/// Addresses and routes of a pod without a peer.
const POD: &str = "
link add eth0 type veth peer name eth1
link set eth0 up
link set eth1 up
addr add 10.1.0.2/24 dev eth0
route add default via 10.1.0.1
";

/// The number of reported attaches at the start and at the end.
const SOME: usize = 10;

/// A pod to be attached.
struct Target {
    netns: Netns,
    cgroup: PathBuf,
}

/// Attaches all and returns the duration of each.
type Attacher = fn(&[Target]) -> Result<Vec<Duration>>;

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let cgroup = Cgroup::new()?;
    let targets = (0..scale.pods)
        .map(|number| {
            let cgroup = cgroup.child(&format!("pod{number}"))?;
            let netns = Netns::new("pod", Some(&cgroup))?;
            netns.ip(POD)?;
            janitor::register(&Task::Detach(netns.path().to_owned()))?;
            Ok(Target { netns, cgroup })
        })
        .collect::<Result<Vec<_>>>()?;
    let measured = measure("interceptor", one_by_one, &targets);
    let detached = detach(&targets)?;
    let (mut rows, line) = measured?;
    rows.push(row("detaching each", &detached));
    Ok(Section {
        method: format!(
            "{} pods with a cgroup each, attached one by one, each with its own command.",
            scale.pods
        ),
        charts: vec![Chart::lines(
            "pods",
            "Attaching one more pod",
            ("pods that are attached", "ms"),
            false,
            vec![line],
        )],
        rows,
        ..Section::default()
    })
}

fn measure(name: &str, attacher: Attacher, targets: &[Target]) -> Result<(Vec<Row>, Line)> {
    let times = attacher(targets)?;
    let some = SOME.min(times.len());
    let rows = vec![
        row(&format!("each of the first {some}"), &times[..some]),
        row(
            &format!("each of the last {some} of {}", times.len()),
            &times[times.len() - some..],
        ),
    ];
    let points = (0_u32..)
        .map(f64::from)
        .zip(times.iter().map(|time| milliseconds(*time)))
        .collect();
    let name = name.to_owned();
    Ok((rows, Line { name, points }))
}

/// With the command, pod by pod.
fn one_by_one(targets: &[Target]) -> Result<Vec<Duration>> {
    targets
        .iter()
        .map(|target| {
            let start = Instant::now();
            attach(target.netns.path(), &target.cgroup, &stock())?;
            Ok(start.elapsed())
        })
        .collect()
}

fn detach(targets: &[Target]) -> Result<Vec<Duration>> {
    targets
        .iter()
        .map(|target| {
            let start = Instant::now();
            interceptor::detach(target.netns.path())?;
            let took = start.elapsed();
            janitor::register(&Task::Detached(target.netns.path().to_owned()))?;
            Ok(took)
        })
        .collect()
}

fn row(what: &str, times: &[Duration]) -> Row {
    let times = times.iter().copied().map(milliseconds).collect();
    let numbers = [(Contestant::Interceptor.to_string(), times)];
    Row::new(what, Unit::Milliseconds, &numbers)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
