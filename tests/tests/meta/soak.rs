//! The soak can fail, and leaves nothing when it is interrupted, whatever it is doing.

use anyhow::Result;
use interceptor_testkit::{
    command::{bounded, run},
    interceptor,
};
use nix::sys::signal::Signal;

use crate::demo::Running;

/// A short one. All of these are interrupted.
const OPTIONS: [&str; 6] = ["--minutes", "5", "--connections", "64", "--seed", "1"];

const ALL_OPEN: &str = "soak: all connections are open";

#[test]
fn nothing_is_left_when_the_soak_is_interrupted() -> Result<()> {
    for (signal, what) in [
        (Signal::SIGINT, "soak: opening"),
        (Signal::SIGTERM, ALL_OPEN),
    ] {
        Running::start_soak(&OPTIONS)?.interrupt(signal, what, 1)?;
    }
    Ok(())
}

#[test]
fn the_soak_finds_pods_that_are_detached() -> Result<()> {
    let mut soak = Running::start_soak(&OPTIONS)?;
    soak.await_progress(ALL_OPEN, 1)?;
    let mut detach = bounded("nsenter");
    detach
        .arg(format!("--mount=/proc/{}/ns/mnt", soak.pid()))
        .arg(interceptor::binary())
        .args(["detach", "--all"]);
    run(&mut detach, "")?;
    soak.interrupt(Signal::SIGINT, "VIOLATION past the proxy", 1)
}
