//! Finding a pod's cgroup and network namespace by its UID, without asking the runtime.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::kubepods::Kubepods;
use crate::netns::NetnsId;

/// How deep processes of a pod may be: below the container's cgroup some have their own.
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

/// Where a pod is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's own.
    pub pod: PathBuf,
    /// The one that kubelet has all pods' below.
    pub kubepods: PathBuf,
}

/// What the processes of a pod's cgroup show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// There are none.
    None,
    /// There are, in the host's network namespace: the runtime has not moved them yet, or they stay.
    InHosts,
    /// The sandbox's network namespace, by the process that it was seen at.
    In {
        /// `/proc/PID/ns/net`.
        netns: PathBuf,
        /// What is to be found there.
        id: NetnsId,
    },
}

impl Sandboxes {
    /// Pods whose cgroups are below `root`, or below `kubepods` if that is given, and whose
    /// processes `proc` shows. `hosts` are the host's network namespace and the agent's own.
    pub fn new(proc: &Path, hosts: [NetnsId; 2], root: &Path, kubepods: Option<&Path>) -> Self {
        Self {
            proc: proc.to_owned(),
            hosts,
            root: root.to_owned(),
            given: kubepods.map(Kubepods::named),
            found: Mutex::default(),
        }
    }

    /// kubelet's cgroups: as they were found before, or looked for if there were none.
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

    /// The cgroup of the pod that kubelet calls `uid`, once it is there.
    pub fn cgroup(&self, uid: &str) -> Option<PodCgroup> {
        self.kubepods().into_iter().find_map(|kubepods| {
            Some(PodCgroup {
                pod: kubepods.pod(uid)?,
                kubepods: kubepods.path().to_owned(),
            })
        })
    }

    /// The pod's network namespace, by its processes.
    ///
    /// The oldest that is not in the host's tells: it is the sandbox's own, or the first container's
    /// where the runtime has none. Later ones may have made network namespaces for themselves, as a
    /// container engine in a pod does.
    #[must_use]
    pub fn processes(&self, cgroup: &Path) -> Processes {
        let mut pids = Vec::new();
        collect(cgroup, DEPTH, &mut pids);
        // Those that end in the meantime do not count.
        let seen: Vec<_> = pids.iter().filter_map(|pid| self.look_at(pid)).collect();
        if seen.is_empty() {
            return Processes::None;
        }
        let inside = seen
            .into_iter()
            .filter(|process| !self.hosts.contains(&process.id));
        let oldest = inside.min_by_key(|process| process.started);
        oldest.map_or(Processes::InHosts, |process| Processes::In {
            netns: process.netns,
            id: process.id,
        })
    }

    fn look_at(&self, pid: &str) -> Option<Seen> {
        let process = self.proc.join(pid);
        let netns = process.join("ns/net");
        Some(Seen {
            started: started(&fs::read_to_string(process.join("stat")).ok()?)?,
            id: NetnsId::of(&netns).ok()?,
            netns,
        })
    }
}

struct Seen {
    /// When it was started, and by its number among those of one tick.
    started: (u64, u32),
    id: NetnsId,
    netns: PathBuf,
}

/// Field 22 of `proc_pid_stat(5)`. The second, a name in parentheses, may be anything.
fn started(stat: &str) -> Option<(u64, u32)> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks = after_name.split_whitespace().nth(22 - 3)?.parse().ok()?;
    Some((ticks, pid))
}

fn collect(cgroup: &Path, depth: u32, pids: &mut Vec<String>) {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of another PID namespace.
    pids.extend(listed.lines().filter(|pid| *pid != "0").map(str::to_owned));
    if depth == 0 {
        return;
    }
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for folder in folders {
        collect(&folder.path(), depth - 1, pids);
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    /// As if another namespace were the host's, and we were the agent.
    fn sandboxes() -> Sandboxes {
        let ids = ["mnt", "net"].map(|kind| Path::new("/proc/self/ns").join(kind));
        let ids = ids.map(|path| NetnsId::of(&path).unwrap());
        Sandboxes::new(Path::new("/proc"), ids, Path::new("/nowhere"), None)
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(started(&format!("12 (a) b) {rest}")), Some((4711, 12)));
        assert_eq!(started("12 (a) S 1"), None);
    }

    #[test]
    fn who_is_not_there_has_no_network() {
        let sandboxes = sandboxes();
        assert_eq!(sandboxes.cgroup("a-uid"), None);
        let nobody = tempfile::tempdir().unwrap();
        assert_eq!(sandboxes.processes(nobody.path()), Processes::None);
    }

    #[test]
    fn processes_of_the_hosts_network_do_not_tell_the_pods() {
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
