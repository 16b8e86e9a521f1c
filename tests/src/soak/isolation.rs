//! A bpffs of the soak's own, so that the soak neither upgrades the pods of tests that run at the same
//! time nor is upgraded by them, and leaves no pin behind, however it ends.

use std::{fs, path::Path, process};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::command::require_root;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};

const BPFFS: &str = "/sys/fs/bpf";

/// The open files of one process besides its connections.
const OTHER_FILES: usize = 1000;

/// Enters a mount namespace with a bpffs of its own. To be called before other threads are started.
///
/// The product refuses a bpffs that is not that of process 1, because its pins would be deleted with the
/// mount namespace. Here that is the purpose; so in this namespace, process 1 is the soak.
pub(crate) fn enter() -> Result<()> {
    require_root()?;
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot create a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none)
        .with_context(|| format!("cannot mount a bpffs at {BPFFS}"))?;
    let own = format!("/proc/{}", process::id());
    mount(Some(own.as_str()), "/proc/1", none, MsFlags::MS_BIND, none)
        .context("cannot mount over /proc/1")
}

/// Raises the limit of open files, which child processes inherit. A proxy has two files for each of its
/// connections.
pub(crate) fn raise_open_files(connections: usize) -> Result<()> {
    let most: u64 = fs::read_to_string(Path::new("/proc/sys/fs/nr_open"))?
        .trim()
        .parse()?;
    let needed = u64::try_from(2 * connections / crate::pods::COUNT + OTHER_FILES)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        ensure!(
            hard >= needed,
            "--connections {connections}: a process would need {needed} open files, and the limit is \
             {hard}, which this user may not raise: raise it (`ulimit -n`), or give fewer connections"
        );
    }
    Ok(())
}
