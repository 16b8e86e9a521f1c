//! Settings and connections drawn at random, to be compared between iptables and Interceptor.
//!
//! The seed alone determines the cases. The first of several alternatives is the simplest: a
//! failing case is shrunk towards it.

mod compare;
mod flows;
mod settings;
mod shrink;

use std::{
    env,
    hash::{BuildHasher as _, Hasher as _, RandomState},
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

/// The default seed.
const FIXED_SEED: u64 = 0x00c0_ffee;

/// The seed in `INTERCEPTOR_SEED`, a decimal number, else always the same one.
pub fn fixed_seed() -> Result<u64> {
    number("INTERCEPTOR_SEED", FIXED_SEED)
}

/// The seed in `INTERCEPTOR_SEED`, a decimal number, else a new one.
pub fn fresh_seed() -> Result<u64> {
    number(
        "INTERCEPTOR_SEED",
        RandomState::new().build_hasher().finish(),
    )
}

/// The number in an environment variable.
pub fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// Prints a result even if the test passes, when cargo drops its captured output.
pub fn report(text: &str) -> Result<()> {
    Ok(writeln!(io::stderr(), "{text}")?)
}

/// The generator of the `index`th case of a seed.
#[must_use]
pub fn runner(seed: u64, index: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), rng)
}

/// `usual` most of the time, else a value of `other`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    weight: u32,
    other: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    proptest::prop_oneof![weight => Just(usual), 1 => other].boxed()
}
