//! The order of a run.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_testkit::{
    bpf::pins,
    interruption::ensure_uninterrupted,
    machine,
    node::{Driver, Node},
};
use serde_json::json;

use crate::{
    agents::{Agents, Build},
    disturbances::{ALL, Deck, Scene, rest},
    growth::{self, Sample},
    ledger::Ledger,
    outside,
    pods::{self, COUNT, ProxyKind, SoakPod, WITH_ENVOY},
    random::Random,
    report::{ComparedResource, Report},
    samples::{Pods, Resource, Samples},
    traffic::{Fault, Kind},
    visitors,
};

/// The interval of lines about the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause between two disturbances.
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// The number of pods that come and go at a time.
const VISITORS: u64 = 6;
/// Samples are taken after this many disturbances each.
const SAMPLE_INTERVAL: usize = 4;
/// How long the pins may stay after a pod is deleted: the agent sweeps four times, the last time after
/// more than five minutes.
const SWEEP_TIMEOUT: Duration = Duration::from_mins(10);

/// All pins.
const PINS: &str = "/sys/fs/bpf/interceptor";

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// From the time when all connections are open.
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
    pub(crate) seed: u64,
}

/// Runs it.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let ledger = Ledger::new();
    eprintln!("soak: seed {}", plan.seed);
    let ticker = ledger.clone();
    thread::spawn(move || print_progress(&ticker));
    let report = run_with(plan, &ledger);
    ledger.end();
    report
}

fn run_with(plan: &Plan, ledger: &Ledger) -> Result<Report> {
    let node = Node::make(Driver::Systemd, Some(machine::shared()?))?;
    allow_relaxation(&node)?;
    let _remote = outside::start(&node, ledger)?;
    let mut scene = Scene {
        node: &node,
        agents: Agents::start(&node, ledger)?,
        pods: Vec::new(),
        ledger: ledger.clone(),
        random: Random::new(plan.seed, 0),
    };
    open_all(&mut scene, plan)?;
    let begun = ledger.elapsed();
    let samples = thread::scope(|scope| {
        for place in 0..VISITORS {
            let node = &node;
            scope.spawn(move || visitors::run(node, ledger, plan.seed, place));
        }
        let samples = disturb(&mut scene, plan);
        ledger.end();
        samples
    })?;
    let lasted = ledger.elapsed().saturating_sub(begun);
    "the end of the run".clone_into(&mut ledger.state().during);
    let open = end_traffic(&mut scene, plan)?;
    let generations = delete_all(scene, &node)?;
    let comparisons = compare(ledger, &samples);
    Ok(Report {
        plan: *plan,
        lasted,
        open,
        generations,
        comparisons,
        ledger: ledger.clone(),
    })
}

/// Lets annotations exclude more of a running pod's traffic.
fn allow_relaxation(node: &Node) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "annotations": {"interceptor.dev/allow-relaxation": "true"}},
    });
    node.api.put(namespace).map(drop)
}

/// Starts the pods that stay, and opens their connections.
fn open_all(scene: &mut Scene<'_>, plan: &Plan) -> Result<()> {
    "opening the connections".clone_into(&mut scene.ledger.state().during);
    eprintln!("soak: opening {} connections", plan.connections);
    for number in 0..COUNT {
        ensure_uninterrupted()?;
        let kind = if number < WITH_ENVOY {
            ProxyKind::Envoy
        } else {
            ProxyKind::Small
        };
        let held = plan.connections * (number + 1) / COUNT - plan.connections * number / COUNT;
        let mut pod = scene
            .node
            .schedule(pods::manifest(scene.node, &format!("shop-{number}")))?;
        pod.start_sandbox(scene.node)?;
        let (ledger, seed) = (scene.ledger.clone(), scene.random.number());
        let output = |place: &str| ledger.of_pod(place, kind);
        let mut pod = SoakPod::start(scene.node, pod, kind, held, seed, output)?;
        pod.start_proxy(scene.node, scene.ledger.of_pod("the proxy", kind))?;
        scene.pods.push(pod);
    }
    scene.pods.iter_mut().try_for_each(SoakPod::begin)?;
    scene.pods.iter().try_for_each(SoakPod::wait_until_held)?;
    eprintln!("soak: all connections are open");
    Ok(())
}

/// Disturbs the node until the end of the run, and takes samples in between. After a disturbance that
/// fails, the run ends early: the node is in an unknown state.
///
/// Samples begin when each disturbance has occurred once: what is created when it is first needed exists
/// then.
fn disturb(scene: &mut Scene<'_>, plan: &Plan) -> Result<Samples> {
    let started = Instant::now();
    let (mut deck, mut samples) = (Deck::new(), Samples::new(plan.duration));
    for number in 1.. {
        let left = plan.duration.saturating_sub(started.elapsed());
        if left.is_zero() {
            break;
        }
        let pause = scene.random.duration(MAX_PAUSE);
        rest(pause.min(left))?;
        let disturbance = deck.next(&mut scene.random);
        let done = scene.disturb(disturbance).and_then(|()| match number {
            _ if number == ALL.len() => sample_each_build(scene, &mut samples, started),
            _ if number > ALL.len() && number % SAMPLE_INTERVAL == 0 => {
                sample(scene, &mut samples, started)
            }
            _ => Ok(()),
        });
        if let Err(error) = done {
            ensure_uninterrupted()?;
            let what = disturbance.name.to_owned();
            let seen = format!("{error:#}\n{}", scene.agents.end_of_log());
            violate(&scene.ledger, what, "completed", seen);
            return Ok(samples);
        }
    }
    sample_each_build(scene, &mut samples, started)?;
    Ok(samples)
}

/// Takes a sample of each build: also a short run has one of both, early and at its end.
fn sample_each_build(scene: &mut Scene<'_>, samples: &mut Samples, started: Instant) -> Result<()> {
    for _ in 0..2 {
        sample(scene, samples, started)?;
        let next = scene.agents.build.other();
        scene.agents.hand_over(next)?;
        scene.agents.until_ready()?;
    }
    Ok(())
}

/// Takes a sample when no pod comes or goes, and the agent has removed the pins of those that were deleted.
fn sample(scene: &Scene<'_>, samples: &mut Samples, started: Instant) -> Result<()> {
    let _quiet = scene.ledger.quiet();
    let expected = Pods {
        attached: COUNT,
        is_changing: false,
    };
    let deadline = Instant::now() + SWEEP_TIMEOUT;
    let mut pods = Pods::read()?;
    while pods != expected && Instant::now() < deadline {
        rest(Duration::from_millis(100))?;
        pods = Pods::read()?;
    }
    if pods != expected {
        let what = "pins, while no pod comes or goes".to_owned();
        let expected = format!("{expected:?}");
        violate(&scene.ledger, what, &expected, format!("{pods:?}"));
    }
    samples.add(started.elapsed(), &scene.agents)
}

/// Lets every connection be used once more, and returns how many are open then.
fn end_traffic(scene: &mut Scene<'_>, plan: &Plan) -> Result<usize> {
    eprintln!("soak: using every open connection once more");
    scene.pods.iter_mut().for_each(SoakPod::end);
    let open = scene
        .pods
        .iter()
        .map(SoakPod::ended)
        .sum::<Result<usize>>()?;
    if open != plan.connections {
        let what = "connections that stay open".to_owned();
        let expected = format!("{} at the end", plan.connections);
        violate(&scene.ledger, what, &expected, open.to_string());
    }
    Ok(open)
}

/// Deletes the pods; then nothing of Interceptor is left. Returns the number of agents.
fn delete_all(scene: Scene<'_>, node: &Node) -> Result<u32> {
    let Scene {
        mut agents,
        pods,
        ledger,
        ..
    } = scene;
    eprintln!("soak: deleting the pods");
    for pod in pods {
        if let Err(error) = pod.delete(node) {
            ensure_uninterrupted()?;
            let what = "a pod that stayed until the end".to_owned();
            violate(&ledger, what, "deleted", format!("{error:#}"));
        }
    }
    let deadline = Instant::now() + SWEEP_TIMEOUT;
    while Path::new(PINS).exists() && Instant::now() < deadline {
        rest(Duration::from_millis(100))?;
    }
    let left = pins::entries_below(Path::new(PINS))?;
    if !left.is_empty() {
        let what = "pins after the last pod is deleted".to_owned();
        violate(&ledger, what, "none", format!("{left:?}"));
    }
    if let Err(error) = agents.terminate() {
        ensure_uninterrupted()?;
        let what = "the last agent".to_owned();
        violate(&ledger, what, "exits after SIGTERM", format!("{error:#}"));
    }
    agents.check_log();
    Ok(agents.generations)
}

fn compare(ledger: &Ledger, samples: &Samples) -> Vec<ComparedResource> {
    let compare = |(resource, build, samples): (Resource, Build, Vec<Sample>)| {
        let comparison = growth::compare(&samples, resource.tolerance());
        if let Some(grown) = comparison.filter(|comparison| comparison.has_grown) {
            let what = format!("{}, {}", resource.name(), build.name());
            let expected = format!("about {} as in the first quarter", grown.first.most);
            let seen = format!("at least {} in the last quarter", grown.last.least);
            violate(ledger, what, &expected, seen);
        }
        ComparedResource {
            resource,
            build,
            comparison,
        }
    };
    samples.all().map(compare).collect()
}

fn violate(ledger: &Ledger, what: String, expected: &str, seen: String) {
    let fault = Fault {
        kind: Kind::Other,
        what,
        expected: expected.to_owned(),
        seen,
    };
    ledger.violate("the node", fault);
}

/// Prints the progress until the end.
fn print_progress(ledger: &Ledger) {
    while !ledger.is_ending() {
        let due = Instant::now() + PROGRESS_INTERVAL;
        while Instant::now() < due && !ledger.is_ending() {
            thread::sleep(Duration::from_millis(100));
        }
        let at = ledger.elapsed().as_secs();
        let state = ledger.state();
        let total = state.total();
        eprintln!(
            "soak: {at} s: {} connections opened, {} exchanges on old ones; {} pods came and went; \
             {} disturbances; {} violations; now: {}",
            total.opened,
            total.old_exchanges,
            state.visits,
            state.disturbances.values().sum::<u64>(),
            state.violation_count(),
            state.during
        );
    }
}
