//! The host: its namespaces, bpffs and the machine-wide lock.

pub(crate) mod paths;

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

/// Where the host mounts its bpffs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// The capabilities that attaching requires, with the bits of `capabilities(7)`.
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_PTRACE", 19),
];

/// How often a lock that another command holds is retried.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Raises the soft limit of open files to the hard one: each pod needs several, and the default is low
/// only because of `select(2)`.
pub(crate) fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise RLIMIT_NOFILE")
}

/// Checks that this process has the privileges that attaching requires.
pub(crate) fn check_root() -> Result<()> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status);
    if geteuid().is_root() && missing.is_empty() {
        return Ok(());
    }
    bail!(
        "root with all capabilities is required, to load BPF programs and to enter network \
         namespaces; missing: {}. Run with sudo, or in a privileged container",
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

/// Makes sure that the host's bpffs is mounted at [`BPFFS`]. Every mount is a separate file system, and
/// pins in a private one are deleted with the mount namespace.
pub(crate) fn ensure_bpffs() -> Result<()> {
    let path = Path::new(BPFFS);
    let mounted = is_bpffs(path);
    let host = HostProcess::find()?;
    let in_hosts_mounts = identity("/proc/self/ns/mnt")? == identity(&host.file("ns/mnt"))?;
    match (mounted, in_hosts_mounts) {
        (true, true) => check_not_private(),
        (false, true) => {
            check_not_private()?;
            mount_bpffs(path)
        }
        (true, false) if identity(BPFFS)? == identity(&host.file(&format!("root{BPFFS}")))? => {
            Ok(())
        }
        (true, false) => bail!(
            "the bpffs at {BPFFS} is private to this mount namespace: pins there, and with them \
             the capture of pods, would be deleted with the namespace. Mount the host's bpffs at {BPFFS} \
             (in a container, a hostPath volume), or run in the host's mount namespace (`nsenter \
             --mount --target 1`)"
        ),
        (false, false) => bail!(
            "no bpffs is mounted at {BPFFS} in this mount namespace: mount the host's at {BPFFS} \
             (in a container, with a hostPath volume)"
        ),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Two concurrent commands would mount two file systems, and one would hide the pins in the other. So
/// they lock the directory that the mount covers.
fn mount_bpffs(path: &Path) -> Result<()> {
    let _lock = lock_directory(path)?;
    if is_bpffs(path) {
        return Ok(());
    }
    let none = MsFlags::empty();
    mount(Some("bpf"), path, Some("bpf"), none, Some("mode=0700"))
        .with_context(|| format!("cannot mount a bpffs at {BPFFS}"))
}

/// A process that is in the host's namespaces until shutdown.
struct HostProcess {
    pid: u32,
}

impl HostProcess {
    /// Init; or, if a security module hides it even from root, kthreadd, which is in the same
    /// namespaces and has the ID 2 on every machine (in a container, 2 may be any process).
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
                "cannot read the namespaces of process 1: run as root in the host's PID \
                 namespace (in a container, hostPID: true)",
            )
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }
}

/// Fails in a container's own PID namespace: process 1 is the container's, and pins in its mount
/// namespace are deleted with the container.
fn check_not_private() -> Result<()> {
    if is_initial_pid_namespace()? {
        return Ok(());
    }
    bail!(
        "the bpffs at {BPFFS} is private to this container: pins there, and with them the capture \
         of pods, would be deleted with it. Run in the host's PID namespace (hostPID: true) \
         with the host's bpffs mounted at {BPFFS} (a hostPath volume)"
    )
}

/// The host's root directory.
pub(crate) fn root() -> Result<PathBuf> {
    Ok(HostProcess::find()?.file("root").into())
}

/// The path of the host's network namespace.
pub(crate) fn netns_path() -> Result<PathBuf> {
    Ok(HostProcess::find()?.file("ns/net").into())
}

/// `PROC_PID_INIT_INO` (`include/linux/proc_ns.h`): the inode of the first PID namespace.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

fn is_initial_pid_namespace() -> Result<bool> {
    Ok(identity("/proc/self/ns/pid")?.1 == INITIAL_PID_NAMESPACE)
}

/// A file's identity: device and inode.
fn identity(path: &str) -> Result<(u64, u64)> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {path}"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The machine-wide lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _lock: Flock<File>,
}

/// Acquires the machine-wide lock: one command at a time changes the pins. The lock is on the bpffs
/// itself, so it creates no file.
pub(crate) fn lock() -> Result<Lock> {
    let lock = lock_directory(Path::new(BPFFS))?;
    Ok(Lock { _lock: lock })
}

fn lock_directory(path: &Path) -> Result<Flock<File>> {
    let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// The same with a timeout.
pub(crate) fn lock_within(timeout: Duration) -> Result<Lock> {
    let deadline = Instant::now() + timeout;
    loop {
        let directory = File::open(BPFFS).with_context(|| format!("cannot open {BPFFS}"))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Lock { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                thread::sleep(LOCK_RETRY_INTERVAL);
            }
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
