//! A process that cleans up after a test process, however that ends.
//!
//! It reads what there will be to do from a pipe, and does it at the pipe's end. It is in a process
//! group of its own, where Ctrl-C does not reach it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use crate::{cgroup, command::own_binary, interceptor, machine};

/// How long namespaces may take to go, and how often that is waited for.
const GOING: Duration = Duration::from_millis(500);
const TIDYINGS: u32 = 4;

/// Something to do when the test process has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Kill what is in this cgroup and remove it.
    RemoveCgroup(PathBuf),
    /// Detach Interceptor from the network namespace at this path, which the janitor keeps.
    Detach(PathBuf),
    /// Interceptor has been detached from the namespace that was at this path.
    Detached(PathBuf),
    /// Unmount what is mounted here, and remove the file.
    Unmount(PathBuf),
    /// Remove this folder of the test's own.
    RemoveFolder(PathBuf),
    /// Have what network namespaces that are gone have left of Interceptor removed: a runtime may
    /// have made one that the test does not know.
    TidyUp,
}

static JANITOR: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Tells the janitor of `task`. Returns when the pipe has it, which is when nothing can be lost.
pub fn remember(task: &Task) -> Result<()> {
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
    // Never waited for: it outlives us.
    child.stdin.take().context("stdin")
}

/// The janitor's life.
pub fn run(input: impl BufRead) -> Result<()> {
    let mut cgroups = Vec::new();
    let (mut mounts, mut folders) = (Vec::new(), Vec::new());
    let mut namespaces = BTreeMap::new();
    let mut tidies_up = false;
    for line in input.lines() {
        match serde_json::from_str(&line?)? {
            Task::RemoveCgroup(path) => cgroups.push(path),
            Task::Detach(path) => {
                // A namespace that is gone already has taken everything with it.
                if let Ok(file) = File::open(&path) {
                    namespaces.insert(path, file);
                }
            }
            Task::Detached(path) => drop(namespaces.remove(&path)),
            Task::Unmount(path) => mounts.push(path),
            Task::RemoveFolder(path) => folders.push(path),
            Task::TidyUp => tidies_up = true,
        }
    }
    for file in namespaces.values() {
        detach(file);
    }
    for path in cgroups {
        // A test that ended well has removed it itself.
        let _removed = cgroup::remove(&path);
    }
    for path in mounts {
        let _unmounted = umount2(&path, MntFlags::MNT_DETACH);
        let _removed = fs::remove_file(&path);
    }
    for path in folders {
        let _removed = fs::remove_dir_all(&path);
    }
    drop(namespaces);
    if tidies_up {
        tidy_up();
    }
    Ok(())
}

/// Every detach removes what is left of namespaces that are gone. They go some time after their last
/// process.
fn tidy_up() {
    for _ in 0..TIDYINGS {
        if !Path::new(machine::PINS).exists() {
            return;
        }
        thread::sleep(GOING);
        // The janitor's own namespace is not captured, of which this complains.
        let _detached = interceptor::detach(Path::new("/proc/self/ns/net"));
    }
}

/// Detaches by the janitor's own descriptor: the namespace has lost its processes.
fn detach(namespace: &File) {
    let fd = namespace.as_raw_fd();
    let path = format!("/proc/{}/fd/{fd}", process::id());
    // It may not have come to the attach.
    let _detached = interceptor::detach(Path::new(&path));
}
