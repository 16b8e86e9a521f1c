//! Removes what exited test processes have left. With `--janitor`: first waits for the exit of one.

use std::{env, io};

use anyhow::Result;
use interceptor_testkit::{cgroup, cleanup};

fn main() -> Result<()> {
    if env::args().any(|argument| argument == "--janitor") {
        return cleanup::run(io::stdin().lock());
    }
    let mount = cgroup::mount()?;
    for path in cgroup::stale(&mount) {
        println!("{}", path.display());
        cgroup::remove(&path)?;
    }
    Ok(())
}
