//! The smoke test for emulated machines: `cargo xtask test-vm`.

use anyhow::Result;
use interceptor_tests::smoke;

fn main() -> Result<()> {
    smoke::run()
}
