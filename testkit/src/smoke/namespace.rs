//! Network namespaces, created with busybox only.

use std::{
    fs::{self, File},
    io, panic,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::mpsc::{Sender, channel},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::gettid,
};

/// A network namespace, held by a thread until this is dropped.
pub(super) struct Namespace {
    thread: i32,
    file: File,
    _end: Sender<()>,
}

impl Namespace {
    /// Makes one.
    pub(super) fn new() -> Result<Self> {
        let (end, until) = channel::<()>();
        let (born, birth) = channel::<io::Result<(i32, File)>>();
        thread::spawn(move || {
            // Fails only if `new` has failed.
            let _sent = born.send(enter_new());
            let _end = until.recv();
        });
        let (thread, file) = birth.recv()??;
        let namespace = Self {
            thread,
            file,
            _end: end,
        };
        // No duplicate address detection: an address can be used at once.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/task/{}/ns/net",
            process::id(),
            self.thread
        ))
    }

    /// The thread in it.
    pub(super) const fn thread(&self) -> i32 {
        self.thread
    }

    /// Runs busybox's `ip`.
    pub(super) fn ip(&self, arguments: &str) -> Result<()> {
        self.enter(|| {
            let mut ip = Command::new("ip");
            let status = ip.args(arguments.split_whitespace()).status()?;
            ensure!(status.success(), "ip {arguments}: {status}");
            Ok(())
        })
    }

    /// Sets `net/a/b`.
    pub(super) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| fs::write(&path, value).with_context(|| name.to_owned()))
    }

    /// Runs `work` in a thread in the namespace.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let enter_and_work = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join())
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

fn enter_new() -> io::Result<(i32, File)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let file = File::open("/proc/thread-self/ns/net")?;
    Ok((gettid().as_raw(), file))
}
