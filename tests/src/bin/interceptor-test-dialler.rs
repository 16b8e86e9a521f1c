//! A process that dials repeatedly: see `interceptor_testkit::dialler`.

use std::env;

use anyhow::{Context as _, Result};
use interceptor_testkit::dialler;

fn main() -> Result<()> {
    dialler::run(
        &env::args()
            .nth(1)
            .context("expected the configuration as JSON")?,
    )
}
