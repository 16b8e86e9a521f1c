//! Whatever settings and connections come up.

use interceptor_tests::random::{Plan, compare, number, report, seed};

const FLOWS_PER_CONFIGURATION: usize = 30;

/// `INTERCEPTOR_FLOWS` is how many, `INTERCEPTOR_SEED` from which seed.
#[test]
fn random_connections_under_random_settings() {
    let seed = seed().expect("a seed");
    let flows = number("INTERCEPTOR_FLOWS", 4500).expect("a number of flows");
    let plan = Plan {
        seed,
        configurations: flows.div_ceil(FLOWS_PER_CONFIGURATION as u64),
        flows: FLOWS_PER_CONFIGURATION,
    };
    let tally = compare(&plan).expect("a comparison");
    report(&format!("{tally} (INTERCEPTOR_SEED={seed})")).expect("an output");
    assert_eq!(tally.mismatches(), 0, "{tally} (INTERCEPTOR_SEED={seed})");
}
