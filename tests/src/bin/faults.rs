//! Executes a program one of whose system calls fails: see `interceptor_testkit::faults`.

use std::env;

use anyhow::Result;
use interceptor_testkit::faults::launcher;

fn main() -> Result<()> {
    match launcher::run(env::args_os().skip(1))? {}
}
