//! The work of the kernel's verifier for the product's programs.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::bpf::stats;

/// The instructions that the verifier processes at most (`BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: u32 = 1_000_000;
/// From this number on, a change or another kernel may exceed the limit.
const NEAR_LIMIT: u32 = LIMIT / 2;

/// Prints the number of instructions of each attached program.
pub(super) fn print_counts() -> Result<()> {
    let mut counts = BTreeMap::new();
    for program in stats::runs("icept_")? {
        let count = counts.entry(program.name).or_insert(0);
        *count = program.verified_instructions.max(*count);
    }
    ensure!(
        counts.get("icept_connect4").is_some_and(|count| *count > 0),
        "the kernel reports no verified instructions: {counts:?}"
    );
    for (name, count) in counts {
        let warning = if count > NEAR_LIMIT {
            " WARNING: near the limit"
        } else {
            ""
        };
        println!("verified: {name:<15} {count:>7} instructions of {LIMIT}{warning}");
    }
    Ok(())
}
