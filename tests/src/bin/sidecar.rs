//! The programs of a pod with a sidecar: see `interceptor_testkit::sidecar`.

use anyhow::Result;
use interceptor_testkit::sidecar;

fn main() -> Result<()> {
    sidecar::main()
}
