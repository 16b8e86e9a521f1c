//! Who may look at what is shared by the whole machine.
//!
//! Interceptor's pins are one tree for all pods. A test that looks only at its own pods holds the
//! shared lock while it has any; one that judges the machine as a whole (nothing at all is left,
//! the tables are full) holds the exclusive one, and waits for the others to end. The locks are on
//! folders that are always there, so they leave nothing behind, and the kernel drops them with the
//! process.

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

/// Held while somebody waits to be alone: nobody new comes in.
const QUEUE: &str = "/sys/fs";
/// Held by those who are in.
const LOCK: &str = "/sys/kernel";
/// Interceptor's own, gone with the last pod.
pub(crate) const PINS: &str = "/sys/fs/bpf/interceptor";

/// How long others may take to end.
const LOCK_TIMEOUT: Duration = Duration::from_mins(10);

/// Keeps those out who want the machine for themselves.
pub struct Shared {
    _lock: Arc<Flock<File>>,
}

thread_local! {
    /// Who is in may come in once more: whoever wants to be alone waits for all of a test to end.
    static HELD: RefCell<Weak<Flock<File>>> = const { RefCell::new(Weak::new()) };
}

/// Keeps everybody out.
pub struct Exclusive {
    _queue: Flock<File>,
    _lock: Flock<File>,
}

/// Takes part. Waits while somebody is alone, unless this thread takes part already.
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

/// Waits to be alone: until no other test has a pod, and nobody else has one captured.
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

/// Detaches what killed tests have left, if nothing else is there: the kernel may keep a network
/// namespace for long after its last process.
///
/// To be called alone: what tests attach is nobody's then.
fn detach_orphans() -> Result<()> {
    let status = interceptor::try_run(["status", "-o", "json"])?;
    let Ok(Value::Array(pods)) = serde_json::from_slice(&status.stdout) else {
        return Ok(());
    };
    let is_orphan = |pod: &Value| {
        let cgroup = pod["cgroup"].as_str().map(Path::new);
        cgroup.is_some_and(|path| is_of_tests(path) && !path.exists())
    };
    if !pods.is_empty() && pods.iter().all(is_orphan) {
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
