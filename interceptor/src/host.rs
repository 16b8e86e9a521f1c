//! The machine's own places that an interception lives in.

pub mod paths;

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::geteuid,
};

use crate::bpf::pins::BPFFS;

/// What attaching takes, with the bits of `capabilities(7)`.
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_PTRACE", 19),
];

/// How often a lock is tried again that another command has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Lets us open as many files as we may. A node's pods take several each; the limit that processes
/// begin with is for those that use `select(2)`.
pub fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot tell RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise RLIMIT_NOFILE")
}

/// Makes sure that we may do what attaching takes.
pub fn check_root() -> Result<()> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status);
    if geteuid().is_root() && missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this needs root with all capabilities, to load BPF programs and to enter network \
         namespaces; missing are {}. Run it with sudo, or in a privileged container",
        missing.join(", ")
    )
}

/// The capabilities that the process whose `/proc/PID/status` reads `status` lacks.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| *name)
        .collect()
}

/// Makes sure that the host's bpffs is mounted at its usual place. Every mount is a file system of
/// its own, and what is pinned in a private one is gone with the mount namespace.
pub fn ensure_bpffs() -> Result<()> {
    let path = Path::new(BPFFS);
    let mounted = is_bpffs(path);
    let host = HostProcess::find()?;
    let in_hosts_mounts = identity("/proc/self/ns/mnt")? == identity(&host.file("ns/mnt"))?;
    match (mounted, in_hosts_mounts) {
        (true, true) => check_lasts(),
        (false, true) => {
            check_lasts()?;
            mount_bpffs(path)
        }
        (true, false) if identity(BPFFS)? == identity(&host.file(&format!("root{BPFFS}")))? => {
            Ok(())
        }
        (true, false) => bail!(
            "the bpffs at {BPFFS} is private to this mount namespace: what is pinned there is \
             gone when the namespace is, and the interception with it. Mount the host's bpffs at \
             {BPFFS} (in a container, a hostPath volume), or run in the host's mount namespace \
             (`nsenter --mount --target 1`)"
        ),
        (false, false) => bail!(
            "no bpffs is mounted at {BPFFS} in this mount namespace: mount the host's there \
             (in a container, a hostPath volume of {BPFFS})"
        ),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Two commands that mount at once would mount two file systems, one over the other: what the first
/// has pinned would be hidden. So they lock the directory below.
fn mount_bpffs(path: &Path) -> Result<()> {
    let _lock = lock_directory(path)?;
    if is_bpffs(path) {
        return Ok(());
    }
    let none = MsFlags::empty();
    mount(Some("bpf"), path, Some("bpf"), none, Some("mode=0700"))
        .with_context(|| format!("cannot mount a bpffs at {BPFFS}"))
}

/// A process that is in the host's namespaces for as long as the machine is up.
struct HostProcess {
    pid: u32,
}

impl HostProcess {
    /// Init; or, where a security module hides it even from root, kthreadd, which is in the same
    /// namespaces and has the ID 2 on every machine (in a container, 2 may be anything).
    fn find() -> Result<Self> {
        let candidates: &[u32] = if is_initial_pid_namespace()? {
            &[1, 2]
        } else {
            &[1]
        };
        candidates
            .iter()
            .map(|pid| Self { pid: *pid })
            .find(|process| identity(&process.file("ns/mnt")).is_ok())
            .context(
                "cannot look at the namespaces of process 1: run as root in the host's PID \
                 namespace (in a container, hostPID: true)",
            )
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }
}

/// In a container's own PID namespace process 1 is the container's, and what is pinned in its mount
/// namespace ends with it.
fn check_lasts() -> Result<()> {
    if is_initial_pid_namespace()? {
        return Ok(());
    }
    bail!(
        "the bpffs at {BPFFS} is private to this container: what is pinned there is gone when the \
         container is, and the interception with it. Run in the host's PID namespace (hostPID: \
         true) with the host's bpffs mounted at {BPFFS} (a hostPath volume)"
    )
}

/// The host's root folder.
pub fn root() -> Result<PathBuf> {
    Ok(HostProcess::find()?.file("root").into())
}

/// The path of the host's network namespace.
pub fn netns_path() -> Result<PathBuf> {
    Ok(HostProcess::find()?.file("ns/net").into())
}

/// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`): the inode of the first PID namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

fn is_initial_pid_namespace() -> Result<bool> {
    Ok(identity("/proc/self/ns/pid")?.1 == INITIAL_PID_NAMESPACE)
}

/// What tells one file from another: device and inode.
fn identity(path: &str) -> Result<(u64, u64)> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Keeps other commands of ours waiting until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _lock: Flock<File>,
}

/// Takes the machine-wide lock: one command changes the pins at a time. The lock is on the bpffs
/// itself, so it leaves nothing behind.
pub fn lock() -> Result<Lock> {
    let lock = lock_directory(Path::new(BPFFS))?;
    Ok(Lock { _lock: lock })
}

fn lock_directory(path: &Path) -> Result<Flock<File>> {
    let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// The same for whoever must not wait for long: fails if another command has it for all of `wait`.
pub fn lock_within(wait: Duration) -> Result<Lock> {
    let end = Instant::now() + wait;
    loop {
        let folder = File::open(BPFFS).with_context(|| format!("cannot open {BPFFS}"))?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Lock { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() < end => thread::sleep(LOOK_AGAIN),
            Err((_, errno)) => return Err(errno).with_context(|| format!("cannot lock {BPFFS}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        // NET_ADMIN and NET_RAW: what istio-init has.
        let missing = missing_capabilities("Name:\tx\nCapEff:\t0000000000003000\n");
        assert_eq!(
            missing,
            ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]
        );
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }
}
