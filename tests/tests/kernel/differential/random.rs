//! Random settings and connections.
//!
//! `INTERCEPTOR_FLOWS` is the number of connections; `INTERCEPTOR_SEED` replays a run.

use anyhow::{Context as _, Result};
use interceptor_testkit::random::{Plan, compare, fixed_seed, fresh_seed, number, report};

const FLOWS_PER_CONFIGURATION: usize = 30;

#[test]
fn random_connections_under_random_settings() -> Result<()> {
    run(fixed_seed()?, 4500)
}

#[test]
fn random_connections_from_a_fresh_seed() -> Result<()> {
    run(fresh_seed()?, 1500)
}

fn run(seed: u64, flows: u64) -> Result<()> {
    let flows = number("INTERCEPTOR_FLOWS", flows)?;
    let plan = Plan {
        seed,
        configurations: flows.div_ceil(FLOWS_PER_CONFIGURATION as u64),
        flows: FLOWS_PER_CONFIGURATION,
    };
    let replay = format!("INTERCEPTOR_SEED={seed} INTERCEPTOR_FLOWS={flows}");
    // Before the run: one that is killed must be replayable too.
    report(&format!("comparing: {replay}"))?;
    let tally = compare(&plan).context(replay.clone())?;
    report(&format!("{tally} ({replay})"))?;
    tally.verify().context(replay)
}
