//! Ctrl-C: everything is cleaned up before the exit.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, bail};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, SIGINT and SIGTERM only set [`was_interrupted`]. To be called before other threads
/// are started. (Child processes get the default handlers.)
pub fn catch_interruptions() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Whether there was a signal.
#[must_use]
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if there was a signal.
pub fn ensure_uninterrupted() -> Result<()> {
    if was_interrupted() {
        bail!("interrupted");
    }
    Ok(())
}
