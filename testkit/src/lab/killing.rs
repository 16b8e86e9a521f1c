//! Killing commands at all points of their runs.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::spawn::spawn;

/// The number of steps between the start and the end of a run.
const STEPS: u32 = 20;

/// Kills each command a little later than the one before. After one that exited before that, it
/// starts again with no delay.
#[derive(Debug)]
pub struct Killing {
    step: Duration,
    delay: Duration,
    passes: u32,
    at_work: u32,
}

impl Killing {
    /// Kills commands that last as long as `work` does.
    pub fn measured(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let start = Instant::now();
        work()?;
        Ok(Self {
            step: start.elapsed() / STEPS,
            delay: Duration::ZERO,
            passes: 0,
            at_work: 0,
        })
    }

    /// Starts `command`, which must not be run by a wrapper, and kills it.
    pub fn kill(&mut self, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(command)?;
        thread::sleep(self.delay);
        // Fails only for a child that was waited for before.
        let _killed = child.kill();
        if child.wait()?.success() {
            self.passes += 1;
            // Other points than in the last pass.
            self.delay = self.step * (self.passes % 4) / 4;
        } else {
            self.at_work += 1;
            self.delay += self.step;
        }
        Ok(())
    }

    /// The number of commands that were killed while they ran.
    #[must_use]
    pub const fn at_work(&self) -> u32 {
        self.at_work
    }
}
