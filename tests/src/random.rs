//! Settings and connections drawn at random, to be compared between iptables and Interceptor.
//!
//! What is drawn hangs on a seed alone. What comes first among alternatives is the simplest: there a
//! case that fails is shrunk to.

mod compare;
mod flows;
mod settings;
mod shrink;

use std::{
    env,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
pub use compare::{Plan, compare};
pub use flows::{Flow, flows};
use proptest::{
    strategy::{BoxedStrategy, Just, Strategy},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
pub use settings::settings;
pub use shrink::shrink;

/// What things are drawn from when nothing else is asked for.
const SEED: u64 = 0x00c0_ffee;

/// The seed: `INTERCEPTOR_SEED`, a decimal number, or always the same.
pub fn seed() -> Result<u64> {
    number("INTERCEPTOR_SEED", SEED)
}

/// The number in an environment variable.
pub fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// Says what came of it, also where a test's output is swallowed because it passed.
pub fn report(text: &str) -> Result<()> {
    Ok(writeln!(io::stderr(), "{text}")?)
}

/// What draws the `index`th of a seed's cases.
#[must_use]
pub fn runner(seed: u64, index: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), rng)
}

/// `usual` most of the time, else something `else`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    weight: u32,
    other: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    proptest::prop_oneof![weight => Just(usual), 1 => other].boxed()
}
