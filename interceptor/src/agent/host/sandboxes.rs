//! Finds a pod's cgroup and network namespace by its UID, without a request to the runtime.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::kubepods::Kubepods;
use crate::netns::NetnsId;

/// The maximum depth of a process's cgroup below the pod's: containers may have nested cgroups.
const DEPTH: u32 = 4;

/// The node's pods, by their cgroups and processes.
#[derive(Debug)]
pub struct Sandboxes {
    proc: PathBuf,
    hosts: [NetnsId; 2],
    root: PathBuf,
    given: Option<Kubepods>,
    found: Mutex<Vec<Kubepods>>,
}

/// The cgroups of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's own cgroup.
    pub pod: PathBuf,
    /// kubelet's cgroup that contains those of all pods.
    pub kubepods: PathBuf,
}

/// The network namespace of a pod's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// The pod has no processes.
    None,
    /// All processes are in the host's network namespace: the runtime has not moved them yet, or they
    /// stay.
    InHosts,
    /// The sandbox's network namespace, found at a process.
    In {
        /// `/proc/PID/ns/net`.
        netns: PathBuf,
        /// Its ID.
        id: NetnsId,
    },
}

impl Sandboxes {
    /// Pods with cgroups below `root`, or below `kubepods` if set, and processes in `proc`. `hosts` are
    /// the host's network namespace and the agent's own.
    pub fn new(proc: &Path, hosts: [NetnsId; 2], root: &Path, kubepods: Option<&Path>) -> Self {
        Self {
            proc: proc.to_owned(),
            hosts,
            root: root.to_owned(),
            given: kubepods.map(Kubepods::named),
            found: Mutex::default(),
        }
    }

    /// kubelet's cgroups: those found before, or else the result of a new search.
    pub fn kubepods(&self) -> Vec<Kubepods> {
        if let Some(given) = &self.given {
            return vec![given.clone()];
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|kubepods| kubepods.path().is_dir());
        if found.is_empty() {
            *found = Kubepods::find(&self.root);
        }
        found.clone()
    }

    /// The cgroups of the pod `uid`, if they exist.
    pub fn cgroup(&self, uid: &str) -> Option<PodCgroup> {
        self.kubepods().into_iter().find_map(|kubepods| {
            Some(PodCgroup {
                pod: kubepods.pod(uid)?,
                kubepods: kubepods.path().to_owned(),
            })
        })
    }

    /// The network namespace of the pod with this cgroup.
    ///
    /// The oldest process outside the host's network namespace determines it: this is the sandbox's own
    /// process, or the first container's if the runtime has none. Later processes may have created
    /// network namespaces, as a container engine in a pod does.
    #[must_use]
    pub fn processes(&self, cgroup: &Path) -> Processes {
        let mut pids = Vec::new();
        collect(cgroup, DEPTH, &mut pids);
        // Processes that exit in the meantime do not count.
        let found: Vec<_> = pids.iter().filter_map(|pid| self.process(pid)).collect();
        if found.is_empty() {
            return Processes::None;
        }
        let inside = found
            .into_iter()
            .filter(|process| !self.hosts.contains(&process.id));
        let oldest = inside.min_by_key(|process| process.started);
        oldest.map_or(Processes::InHosts, |process| Processes::In {
            netns: process.netns,
            id: process.id,
        })
    }

    fn process(&self, pid: &str) -> Option<Process> {
        let process = self.proc.join(pid);
        let netns = process.join("ns/net");
        Some(Process {
            started: started(&fs::read_to_string(process.join("stat")).ok()?)?,
            id: NetnsId::of(&netns).ok()?,
            netns,
        })
    }
}

struct Process {
    /// The start time in ticks, then the PID.
    started: (u64, u32),
    id: NetnsId,
    netns: PathBuf,
}

/// Field 22 of `proc_pid_stat(5)`. Field 2, a name in parentheses, may contain any character.
fn started(stat: &str) -> Option<(u64, u32)> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks = after_name.split_whitespace().nth(22 - 3)?.parse().ok()?;
    Some((ticks, pid))
}

fn collect(cgroup: &Path, depth: u32, pids: &mut Vec<String>) {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process in another PID namespace.
    pids.extend(listed.lines().filter(|pid| *pid != "0").map(str::to_owned));
    if depth == 0 {
        return;
    }
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for dir in dirs {
        collect(&dir.path(), depth - 1, pids);
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    /// With other namespaces as the host's.
    fn sandboxes() -> Sandboxes {
        let ids = ["mnt", "net"].map(|kind| Path::new("/proc/self/ns").join(kind));
        let ids = ids.map(|path| NetnsId::of(&path).unwrap());
        Sandboxes::new(Path::new("/proc"), ids, Path::new("/nowhere"), None)
    }

    #[test]
    fn a_process_name_may_contain_any_character() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(started(&format!("12 (a) b) {rest}")), Some((4711, 12)));
        assert_eq!(started("12 (a) S 1"), None);
    }

    #[test]
    fn an_unknown_pod_has_no_network_namespace() {
        let sandboxes = sandboxes();
        assert_eq!(sandboxes.cgroup("a-uid"), None);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(sandboxes.processes(empty.path()), Processes::None);
    }

    #[test]
    fn processes_in_the_hosts_network_do_not_count() {
        let cgroup = tempfile::tempdir().unwrap();
        fs::create_dir(cgroup.path().join("container")).unwrap();
        fs::write(
            cgroup.path().join("container/cgroup.procs"),
            format!("{}\n0\n", process::id()),
        )
        .unwrap();
        let sandboxes = sandboxes();
        let found = sandboxes.processes(cgroup.path());
        assert_eq!(found, Processes::InHosts);
    }
}
