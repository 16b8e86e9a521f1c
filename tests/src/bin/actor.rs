//! The process that acts for a test: see `interceptor_tests::agent`.

use std::env;

use anyhow::{Context as _, Result};
use interceptor_tests::agent;

fn main() -> Result<()> {
    let place = env::args().nth(1).context("tell me my place, as JSON")?;
    agent::run(&serde_json::from_str(&place)?)
}
