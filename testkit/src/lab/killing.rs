//! Killing commands at all points of their lives.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::spawn::spawn;

/// In how many steps the life of a command is walked through.
const STEPS: u32 = 20;

/// Kills each command a little later than the one before, until one has ended before that; then it
/// begins anew.
#[derive(Debug)]
pub struct Killing {
    step: Duration,
    delay: Duration,
    started: u32,
    at_work: u32,
}

impl Killing {
    /// Kills commands that take as long as `work` does.
    pub fn measured(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let start = Instant::now();
        work()?;
        Ok(Self {
            step: start.elapsed() / STEPS,
            delay: Duration::ZERO,
            started: 0,
            at_work: 0,
        })
    }

    /// Starts `command`, which must not be below another, and kills it.
    pub fn kill(&mut self, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(command)?;
        thread::sleep(self.delay);
        // Fails only for a child that has been waited for.
        let _killed = child.kill();
        if child.wait()?.success() {
            self.started += 1;
            // Not at the same points again.
            self.delay = self.step * (self.started % 4) / 4;
        } else {
            self.at_work += 1;
            self.delay += self.step;
        }
        Ok(())
    }

    /// How many were still at work.
    #[must_use]
    pub const fn at_work(&self) -> u32 {
        self.at_work
    }
}
