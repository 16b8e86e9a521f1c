//! The processes of a network namespace, and whether an attach point contains all of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::attach_points::AttachPoints;
use crate::{
    cgroup::{Cgroup, Hierarchy},
    netns::{Netns, NetnsId},
};

/// The maximum number of processes in an error.
const MAX_NAMED_PROCESSES: usize = 5;

/// CNI plugins and other commands of ours enter a network namespace for a moment. They do not count
/// if one of this many checks finds no process outside of the attach points.
const MAX_CHECKS: usize = 10;
/// The interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A process and the cgroup that it creates its sockets in.
struct Process {
    pid: u32,
    name: String,
    cgroup: PathBuf,
}

/// Fails if a process in `netns` is outside of `attach_points`: a pod must not be attached without
/// being captured.
pub(crate) fn check_covered(
    netns: &Netns,
    attach_points: &AttachPoints,
    hierarchy: &Hierarchy,
) -> Result<()> {
    let cgroup = &attach_points.root;
    let mut outside = find_outside(netns, cgroup, hierarchy)?;
    for _ in 1..MAX_CHECKS {
        if outside.is_empty() {
            return Ok(());
        }
        thread::sleep(CHECK_INTERVAL);
        outside = find_outside(netns, cgroup, hierarchy)?;
    }
    if outside.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = outside
        .iter()
        .take(MAX_NAMED_PROCESSES)
        .map(|process| {
            let Process { pid, name, cgroup } = process;
            format!("{pid} ({name}) in {}", cgroup.display())
        })
        .collect();
    let more = match outside.len().saturating_sub(MAX_NAMED_PROCESSES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    bail!(
        "the cgroup {} does not contain all processes of the network namespace {}, so their \
         connections would not be captured: {}{more}. Set --cgroup to a cgroup that contains all \
         of them, or omit it to use the hierarchy's root",
        cgroup.path().display(),
        netns.path().display(),
        named.join(", ")
    )
}

/// Whether no process except this one is in `netns`.
pub(crate) fn is_empty(netns: &Netns) -> Result<bool> {
    let wanted = netns.id()?;
    let own = process::id();
    let processes = numbers_in(Path::new("/proc")).context("cannot list /proc")?;
    let mut others = processes.into_iter().filter(|pid| *pid != own);
    Ok(!others.any(|pid| thread_in(pid, wanted).is_some()))
}

/// The processes of `netns` outside of `cgroup`.
fn find_outside(netns: &Netns, cgroup: &Cgroup, hierarchy: &Hierarchy) -> Result<Vec<Process>> {
    let mut processes = in_netns(netns, hierarchy)?;
    processes.retain(|process| !cgroup.covers(&process.cgroup));
    Ok(processes)
}

fn in_netns(netns: &Netns, hierarchy: &Hierarchy) -> Result<Vec<Process>> {
    let wanted = netns.id()?;
    let own = process::id();
    let processes = numbers_in(Path::new("/proc")).context("cannot list /proc")?;
    Ok(processes
        .into_iter()
        .filter(|pid| *pid != own)
        .filter_map(|pid| find(pid, wanted, hierarchy))
        .collect())
}

/// The process `pid`, if one of its threads is in the network namespace `wanted`. (A thread may be in
/// another than its leader.) Processes that exit in the meantime do not count.
fn find(pid: u32, wanted: NetnsId, hierarchy: &Hierarchy) -> Option<Process> {
    let thread = thread_in(pid, wanted)?;
    let cgroup = fs::read_to_string(thread.join("cgroup")).ok()?;
    let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
    Some(Process {
        pid,
        name: name.trim_end().to_owned(),
        cgroup: hierarchy.cgroup_of_process(&cgroup)?,
    })
}

fn thread_in(pid: u32, wanted: NetnsId) -> Option<PathBuf> {
    let threads = PathBuf::from(format!("/proc/{pid}/task"));
    numbers_in(&threads)
        .ok()?
        .into_iter()
        .map(|thread| threads.join(thread.to_string()))
        .find(|thread| NetnsId::of(&thread.join("ns/net")).is_ok_and(|found| found == wanted))
}

/// The entries of a directory whose names are numbers.
fn numbers_in(dir: &Path) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    Ok(names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}
