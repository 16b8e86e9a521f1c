//! A process that makes system calls for a test: see `interceptor_testkit::actor`.

use std::env;

use anyhow::{Result, bail};
use interceptor_testkit::actor::process;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [place] => process::run(&serde_json::from_str(place)?),
        ["here", name] => process::run_here(name),
        _ => bail!("expected the configuration as JSON, or: here NAME"),
    }
}
