//! Removes what test processes that are gone have left. With `--janitor`: waits for the end of one.

use std::{env, io};

use anyhow::Result;
use interceptor_testkit::{cgroup, janitor};

fn main() -> Result<()> {
    if env::args().any(|argument| argument == "--janitor") {
        return janitor::run(io::stdin().lock());
    }
    let mount = cgroup::mount()?;
    for path in cgroup::stale(&mount) {
        println!("{}", path.display());
        cgroup::remove(&path)?;
    }
    Ok(())
}
