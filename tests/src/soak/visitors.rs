//! Pods that come and go all the time, also while no agent runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use interceptor_testkit::{
    interruption::was_interrupted,
    node::{Node, Pod},
};

use crate::{
    ledger::Ledger,
    outside,
    pods::{self, ProxyKind, SoakPod},
    random::Random,
    traffic::{Fault, Kind},
};

/// The connections of a pod that stay open as long as the pod.
const HELD: usize = 4;
/// How long a pod lives at most.
const MAX_LIFE: Duration = Duration::from_secs(8);
/// The maximum pause before the next one.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long kubelet's attempts to start a pod may fail while the agent is replaced.
const START_TIMEOUT: Duration = Duration::from_mins(10);
/// The pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Lets pods come and go until the end. `place` distinguishes several of these.
pub(crate) fn run(node: &Node, ledger: &Ledger, seed: u64, place: u64) {
    let mut random = Random::new(seed, 1000 + place);
    let mut number = 0_u64;
    while !ledger.is_ending() {
        number += 1;
        let visiting = ledger.visit();
        let name = format!("visitor-{place}-{number}");
        if let Err(error) = visit(node, ledger, &name, &mut random) {
            if was_interrupted() {
                return;
            }
            let fault = Fault {
                kind: Kind::Other,
                what: "a pod that comes and goes".to_owned(),
                expected: "created and deleted".to_owned(),
                seen: format!("{error:#}"),
            };
            ledger.violate(&name, fault);
        }
        drop(visiting);
        rest(ledger, random.duration(MAX_PAUSE));
    }
}

fn visit(node: &Node, ledger: &Ledger, name: &str, random: &mut Random) -> Result<()> {
    let mut pod = node.schedule(pods::manifest(node, name))?;
    if !start_sandbox(node, ledger, &mut pod)? {
        return node.delete(pod);
    }
    let output = |place: &str| ledger.of_visitor(place);
    let mut pod = SoakPod::start(node, pod, ProxyKind::Small, HELD, random.number(), output)?;
    expect_refused(ledger, &mut pod)?;
    let output = ledger.of_visitor(name);
    pod.start_proxy(node, output)?;
    pod.begin()?;
    pod.wait_until_held()?;
    rest(ledger, random.duration(MAX_LIFE));
    pod.end();
    pod.ended()?;
    pod.delete(node)?;
    ledger.state().visits += 1;
    Ok(())
}

/// Starts a pod's sandbox, as kubelet does: again and again. False at the end of the run.
fn start_sandbox(node: &Node, ledger: &Ledger, pod: &mut Pod) -> Result<bool> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !ledger.is_ending() && !was_interrupted() {
        match pod.start_sandbox(node) {
            Ok(()) => return Ok(true),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => ledger.state().failed_starts += 1,
        }
        thread::sleep(RETRY_INTERVAL);
    }
    Ok(false)
}

/// Before its proxy listens, a connection of a captured pod is refused.
fn expect_refused(ledger: &Ledger, pod: &mut SoakPod) -> Result<()> {
    let to = outside::destinations()?[0];
    if let Ok(seen) = pod.app().probe(to)? {
        let fault = Fault {
            kind: Kind::Bypassed,
            what: format!(
                "the first connection of {} to {to}, before its proxy",
                pod.name
            ),
            expected: "refused".to_owned(),
            seen: seen.to_string(),
        };
        ledger.violate(&pod.name, fault);
    }
    Ok(())
}

fn rest(ledger: &Ledger, time: Duration) {
    let until = Instant::now() + time;
    while !ledger.is_ending() && Instant::now() < until {
        thread::sleep(POLL_INTERVAL);
    }
}
