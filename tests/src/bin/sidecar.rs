//! The programs of a pod with a sidecar: see `interceptor_tests::sidecar`.

use anyhow::Result;
use interceptor_tests::sidecar;

fn main() -> Result<()> {
    sidecar::main()
}
