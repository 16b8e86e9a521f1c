//! The process that dials on and on: see `interceptor_testkit::dialler`.

use std::env;

use anyhow::{Context as _, Result};
use interceptor_testkit::dialler;

fn main() -> Result<()> {
    dialler::run(&env::args().nth(1).context("tell me what to do, as JSON")?)
}
