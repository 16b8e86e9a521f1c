//! Locks for tests that inspect state shared by the whole machine.
//!
//! Interceptor's pins are one tree for all pods. A test that inspects only its own pods holds the
//! shared lock while it has any; a test that checks the machine as a whole (no leftovers, full
//! tables) holds the exclusive lock, and waits for the other tests to finish. The locks are on
//! directories that always exist, so nothing is left behind, and the kernel releases them at the
//! process's exit.

use std::{
    cell::RefCell,
    fs::File,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde_json::Value;

use crate::{cgroup::is_of_tests, interceptor};

/// Held while a test waits for the exclusive lock: no test gets a new shared lock.
const QUEUE: &str = "/sys/fs";
/// Held shared or exclusively.
const LOCK: &str = "/sys/kernel";
/// Interceptor's pins; deleted with the last pod.
pub(crate) const PINS: &str = "/sys/fs/bpf/interceptor";

/// Time limit of waiting for other tests.
const LOCK_TIMEOUT: Duration = Duration::from_mins(10);

/// Excludes tests that need the machine for themselves.
pub struct Shared {
    _lock: Arc<Flock<File>>,
}

thread_local! {
    /// The lock that this thread holds, to share it again: an exclusive test waits for all of a
    /// test to finish.
    static HELD: RefCell<Weak<Flock<File>>> = const { RefCell::new(Weak::new()) };
}

/// Excludes all other tests.
pub struct Exclusive {
    _queue: Flock<File>,
    _lock: Flock<File>,
}

/// Takes the shared lock. Waits for a test with the exclusive lock, unless this thread has the
/// shared lock already.
pub fn shared() -> Result<Shared> {
    if let Some(lock_file) = HELD.with_borrow(Weak::upgrade) {
        return Ok(Shared { _lock: lock_file });
    }
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let _queue = lock(QUEUE, FlockArg::LockExclusiveNonblock, deadline)?;
    let lock_file = Arc::new(lock(LOCK, FlockArg::LockSharedNonblock, deadline)?);
    HELD.set(Arc::downgrade(&lock_file));
    Ok(Shared { _lock: lock_file })
}

/// Takes the exclusive lock: waits until no test has a pod, and no other pod is captured.
pub fn exclusive() -> Result<Exclusive> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let queue = lock(QUEUE, FlockArg::LockExclusiveNonblock, deadline)?;
    let lock_file = lock(LOCK, FlockArg::LockExclusiveNonblock, deadline)?;
    while Path::new(PINS).exists() {
        wait(PINS, deadline)?;
        detach_orphans()?;
    }
    Ok(Exclusive {
        _queue: queue,
        _lock: lock_file,
    })
}

/// Detaches the pods of killed tests, if there are no others: the kernel may keep a network
/// namespace long after its last process. Without any pod, deletes what a killed command left behind.
///
/// Only with the exclusive lock: otherwise the pods may be a running test's.
fn detach_orphans() -> Result<()> {
    let status = interceptor::try_run(["status", "-o", "json"])?;
    let Ok(Value::Array(pods)) = serde_json::from_slice(&status.stdout) else {
        return Ok(());
    };
    let is_orphan = |pod: &Value| {
        let cgroup = pod["cgroup"].as_str().map(Path::new);
        cgroup.is_some_and(|path| is_of_tests(path) && !path.exists())
    };
    if pods.iter().all(is_orphan) {
        interceptor::try_run(["detach", "--all"])?;
    }
    Ok(())
}

fn lock(path: &str, how: FlockArg, deadline: Instant) -> Result<Flock<File>> {
    let mut file = File::open(path).context(path.to_owned())?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno).context(path.to_owned()),
        }
        wait(path, deadline)?;
    }
}

fn wait(what: &str, deadline: Instant) -> Result<()> {
    if Instant::now() > deadline {
        bail!("{what}: still in use by others after {LOCK_TIMEOUT:?}");
    }
    thread::sleep(Duration::from_millis(20));
    Ok(())
}
