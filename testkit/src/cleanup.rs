//! The work of the [`janitor`](crate::janitor) process.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufRead,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};

use crate::{cgroup, interceptor, janitor::Task, machine};

/// The kernel deletes a namespace some time after its last process: sweep several times.
const SWEEPS: u32 = 4;
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Reads tasks up to the end of `input`, then runs them.
pub fn run(input: impl BufRead) -> Result<()> {
    let mut cgroups = Vec::new();
    let (mut mounts, mut dirs) = (Vec::new(), Vec::new());
    let mut namespaces = BTreeMap::new();
    let mut writes = Vec::new();
    let mut sweeps = false;
    for line in input.lines() {
        match serde_json::from_str(&line?)? {
            Task::RemoveCgroup(path) => cgroups.push(path),
            Task::Detach(path) => {
                // A namespace that is deleted already needs no detach.
                if let Ok(file) = File::open(&path) {
                    namespaces.insert(path, file);
                }
            }
            Task::Detached(path) => drop(namespaces.remove(&path)),
            Task::Unmount(path) => mounts.push(path),
            Task::RemoveDir(path) => dirs.push(path),
            Task::Write(path, text) => writes.push((path, text)),
            Task::Sweep => sweeps = true,
        }
    }
    for path in cgroups {
        // A test that exited cleanly has removed the cgroup.
        let _removed = cgroup::remove(&path);
    }
    for path in mounts {
        let _unmounted = umount2(&path, MntFlags::MNT_DETACH);
        let _removed = fs::remove_file(&path);
    }
    for path in dirs {
        let _removed = fs::remove_dir_all(&path);
    }
    // The oldest text last.
    for (path, text) in writes.iter().rev() {
        let _written = fs::write(path, text);
    }
    if sweeps || !namespaces.is_empty() {
        remove_pins(namespaces, sweeps)?;
    }
    Ok(())
}

/// Detaches the namespaces, and sweeps if `sweeps`.
///
/// Every detach upgrades what another build has pinned, so none may run beside the upgrade tests of a
/// test process that has started in the meantime. That process may in turn wait for the deletion of
/// these pins: it deletes them itself once their cgroups are deleted.
fn remove_pins(namespaces: BTreeMap<PathBuf, File>, sweeps: bool) -> Result<()> {
    let _shared = machine::shared()?;
    for file in namespaces.values() {
        detach(file);
    }
    drop(namespaces);
    if sweeps {
        sweep();
    }
    Ok(())
}

/// Every detach removes the pins of deleted namespaces. The kernel deletes a namespace some time
/// after its last process has exited.
fn sweep() {
    for _ in 0..SWEEPS {
        if !Path::new(machine::PINS).exists() {
            return;
        }
        thread::sleep(SWEEP_INTERVAL);
        // Fails, since the janitor's own namespace is not captured; sweeps anyway.
        let _detached = interceptor::detach(Path::new("/proc/self/ns/net"));
    }
}

/// Detaches through the janitor's own file descriptor: the namespace has no processes any more.
fn detach(namespace: &File) {
    let fd = namespace.as_raw_fd();
    let path = format!("/proc/{}/fd/{fd}", process::id());
    // Fails if the test exited before its attach.
    let _detached = interceptor::detach(Path::new(&path));
}
