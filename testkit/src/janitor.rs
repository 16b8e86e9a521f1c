//! The janitor: a process that cleans up after a test process, however that exits.
//!
//! A test process registers each [`Task`] in advance, through a pipe; the janitor runs them at the
//! pipe's end (`cleanup`). It has its own process group, so that Ctrl-C does not reach it.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command::own_binary;

/// A cleanup to run when the test process has exited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Kill the processes of this cgroup and remove it.
    RemoveCgroup(PathBuf),
    /// Detach Interceptor from the network namespace at this path, which the janitor keeps.
    Detach(PathBuf),
    /// Drop the `Detach` task of this path: Interceptor is detached already.
    Detached(PathBuf),
    /// Unmount the file at this path, and remove it.
    Unmount(PathBuf),
    /// Remove this directory of the test.
    RemoveDir(PathBuf),
    /// Write this text to a file: the kernel's setting from before the test.
    Write(PathBuf, String),
    /// Remove the pins of deleted network namespaces: a container runtime may have created
    /// namespaces that the test does not know.
    Sweep,
}

static JANITOR: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Registers `task` with the janitor. Once this returns, the task cannot be lost: the pipe has it.
pub fn register(task: &Task) -> Result<()> {
    let mut line = serde_json::to_string(task)?;
    line.push('\n');
    let mut janitor = JANITOR.lock().unwrap_or_else(PoisonError::into_inner);
    if janitor.is_none() {
        *janitor = Some(start()?);
    }
    let pipe = janitor.as_mut().context("no janitor")?;
    pipe.write_all(line.as_bytes()).context("janitor")
}

fn start() -> Result<ChildStdin> {
    let mut child = Command::new(own_binary("interceptor-test-sweep")?)
        .arg("--janitor")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // No wait: the janitor outlives this process.
    child.stdin.take().context("stdin")
}
