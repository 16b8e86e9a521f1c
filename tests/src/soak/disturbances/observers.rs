//! Observers of flows: while one runs, the programs report every connection.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use interceptor_testkit::{interceptor, spawn::spawn};

use super::{Scene, rest};

/// How long an observer runs at most.
const MAX_TIME: Duration = Duration::from_secs(3);

pub(super) fn come_and_go(scene: &mut Scene<'_>) -> Result<()> {
    // A command of this build only reads; it does not upgrade the agent's pods.
    let mut command = Command::new(interceptor::binary());
    command
        .args(["observe", "-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut observer = spawn(command)?;
    let time = scene.random.duration(MAX_TIME);
    let rested = rest(time).and_then(|()| scene.agents.get("/metrics"));
    // Fails only for one that has exited: those of another build than the agent's do.
    let _killed = observer.kill();
    let _status = observer.wait();
    rested.map(drop)
}
