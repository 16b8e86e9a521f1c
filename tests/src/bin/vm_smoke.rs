//! The smoke test for emulated machines: `cargo xtask test-vm`.

use anyhow::Result;
use interceptor_testkit::smoke;

fn main() -> Result<()> {
    smoke::run()
}
