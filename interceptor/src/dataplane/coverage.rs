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
    for pid in processes.into_iter().filter(|pid| *pid != own) {
        if thread_in(pid, wanted)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
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
    let others = processes.into_iter().filter(|pid| *pid != own);
    others
        .filter_map(|pid| find(pid, wanted, hierarchy).transpose())
        .collect()
}

/// The process `pid`, if one of its threads is in the network namespace `wanted`. (A thread may be in
/// another than its leader.) Processes that exit in the meantime do not count.
fn find(pid: u32, wanted: NetnsId, hierarchy: &Hierarchy) -> Result<Option<Process>> {
    let Some(thread) = thread_in(pid, wanted)? else {
        return Ok(None);
    };
    let cgroup = fs::read_to_string(thread.join("cgroup"));
    let cgroup = if_visible(cgroup).with_context(|| cannot_inspect(pid))?;
    let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
    let cgroup = cgroup.and_then(|cgroup| hierarchy.cgroup_of_process(&cgroup));
    Ok(cgroup.map(|cgroup| Process {
        pid,
        name: name.trim_end().to_owned(),
        cgroup,
    }))
}

fn thread_in(pid: u32, wanted: NetnsId) -> Result<Option<PathBuf>> {
    let threads = PathBuf::from(format!("/proc/{pid}/task"));
    let numbers = if_visible(numbers_in(&threads)).with_context(|| cannot_inspect(pid))?;
    for number in numbers.unwrap_or_default() {
        let thread = threads.join(number.to_string());
        let found = if_visible(NetnsId::of(&thread.join("ns/net")));
        if found.with_context(|| cannot_inspect(pid))? == Some(wanted) {
            return Ok(Some(thread));
        }
    }
    Ok(None)
}

fn cannot_inspect(pid: u32) -> String {
    format!("cannot read the network namespace and the cgroup of the process {pid}")
}

/// `None` if the process or thread has exited, or if a security module hides it. Another error must not
/// hide one.
fn if_visible<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM) => Ok(None),
            _ => Err(error),
        },
        Ok(found) => Ok(Some(found)),
    }
}

/// The entries of a directory whose names are numbers.
fn numbers_in(dir: &Path) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    Ok(numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exited_or_hidden_processes_are_left_out() {
        let read = |errno| if_visible::<()>(Err(io::Error::from_raw_os_error(errno)));
        for errno in [libc::ENOENT, libc::ESRCH, libc::EACCES, libc::EPERM] {
            assert_eq!(read(errno).unwrap(), None);
        }
        assert_eq!(read(libc::EIO).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
